//! What became of each parameter.

/// What became of a parameter. The worst of its parts is that of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing need be written: it is built in, the same without it, or without meaning here.
    NotNeeded,
    /// It is a key of the new configuration.
    Translated,
    /// It is lost unless somebody does something.
    NotTranslated,
}

impl Verdict {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotNeeded => "not needed",
            Self::Translated => "translated",
            Self::NotTranslated => "not translated",
        }
    }
}

/// A part of a parameter, such as one restriction of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What became of it.
    pub verdict: Verdict,
    /// Which key, or why; and what to do.
    pub text: String,
}

/// A parameter where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `main.cf` or `master.cf`.
    pub file: &'static str,
    /// The line, counted from 1.
    pub line: usize,
    /// The service whose option it is, or that is meant.
    pub service: Option<String>,
    /// The parameter, or the program of a service.
    pub name: String,
    /// As written.
    pub value: String,
    /// What became of it.
    pub verdict: Verdict,
    /// Which key, or why.
    pub told: Vec<Told>,
}

/// What became of everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Every parameter of main.cf and every option of master.cf, in their order.
    pub parameters: Vec<Entry>,
    /// The services of master.cf.
    pub services: Vec<Entry>,
    /// What a person has to do or decide, besides what could not be translated.
    pub to_do: Vec<String>,
}

impl Report {
    /// How many parameters have this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        let all = self.parameters.iter();
        all.filter(|entry| entry.verdict == verdict).count()
    }

    /// Translated or not needed, in percent of all parameters.
    pub fn handled_percent(&self) -> usize {
        let all = self.parameters.len();
        let handled = all - self.count(Verdict::NotTranslated);
        (handled * 100).checked_div(all).unwrap_or(100)
    }

    /// Whether somebody has to do something before mail can go the new way.
    pub fn is_complete(&self) -> bool {
        let mut all = self.parameters.iter().chain(&self.services);
        self.to_do.is_empty() && all.all(|entry| entry.verdict != Verdict::NotTranslated)
    }
}
