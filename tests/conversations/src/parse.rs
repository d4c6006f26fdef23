//! Files into lines.

use crate::{Fault, Kind, Line, Listener, Needs, Transcript};

impl Transcript {
    /// Reads a file. `name` is `rfcNNNN/section-behaviour.txt`.
    ///
    /// # Errors
    ///
    /// The first line that does not belong there, or what is missing.
    pub fn parse(name: &str, text: &str) -> Result<Self, Fault> {
        let mut transcript = Self {
            name: name.to_owned(),
            title: String::new(),
            listeners: Vec::new(),
            needs: Needs::Nothing,
            one_packet: false,
            why: None,
            lines: Vec::new(),
        };
        let mut head = true;
        for (number, line) in (1..).zip(text.lines()) {
            if line.starts_with('#') || line.is_empty() {
                head &= !line.is_empty();
                continue;
            }
            let added = if head {
                transcript.header(line)
            } else {
                parse_line(number, line).map(|line| transcript.lines.push(line))
            };
            added.map_err(|problem| transcript.fault(number, problem))?;
        }
        match transcript.lacks() {
            None => Ok(transcript),
            Some(what) => Err(transcript.fault(1, what)),
        }
    }

    fn header(&mut self, line: &str) -> Result<(), String> {
        let (name, value) = line.split_once(": ").ok_or("a header is `name: value`")?;
        match name {
            "title" => value.clone_into(&mut self.title),
            "why" => self.why = Some(value.to_owned()),
            "listener" => {
                for word in value.split(", ") {
                    let known = Listener::ALL.into_iter().find(|one| one.as_str() == word);
                    let known = known.ok_or_else(|| format!("no listener is {word:?}"))?;
                    if self.listeners.contains(&known) {
                        return Err(format!("{word} twice"));
                    }
                    self.listeners.push(known);
                }
            }
            "needs" => {
                for word in value.split(", ") {
                    self.need(word)?;
                }
            }
            _ => return Err(format!("no header is {name:?}")),
        }
        Ok(())
    }

    fn need(&mut self, word: &str) -> Result<(), String> {
        self.needs = match word {
            "one packet" => {
                self.one_packet = true;
                return Ok(());
            }
            "hello" => Needs::Hello,
            "tls" => Needs::Tls,
            "tls hello" => Needs::TlsHello,
            "auth" => Needs::Auth,
            "ready" => Needs::Ready,
            _ => return Err(format!("nothing to need is {word:?}")),
        };
        Ok(())
    }

    fn lacks(&self) -> Option<String> {
        let (folder, file) = self.name.split_once('/')?;
        let rfc = folder.strip_prefix("rfc").unwrap_or_default();
        let title = match folder {
            "postfix" => "Postfix's ".to_owned(),
            _ => format!("RFC {rfc} §"),
        };
        let section = file.split_once('-').map(|(section, _)| section);
        let sound = |section: &str| {
            !section.is_empty() && section.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        };
        let named = folder != "postfix";
        if named && (rfc.is_empty() || !rfc.bytes().all(|b| b.is_ascii_digit())) {
            return Some("the folder is neither rfcNNNN nor postfix".to_owned());
        }
        if named && !section.is_some_and(sound) {
            return Some("the name is not section-behaviour.txt".to_owned());
        }
        if !self.title.starts_with(&title) {
            return Some(format!("the title does not begin with {title:?}"));
        }
        if self.listeners.is_empty() {
            return Some("`listener` is missing".to_owned());
        }
        let speaks = |line: &Line| matches!(line.kind, Kind::Server | Kind::ServerReply);
        if !self.lines.iter().any(speaks) {
            return Some("the server never says anything".to_owned());
        }
        None
    }
}

fn parse_line(number: usize, line: &str) -> Result<Line, String> {
    let (tag, text) = line.split_once(' ').unwrap_or((line, ""));
    let (tag, times) = repeated(tag)?;
    let kind = match &*tag {
        "C:" => Kind::Client,
        "C!" => Kind::ClientOctets,
        "B:" => Kind::Chunk,
        "L:" => Kind::LastChunk,
        "A:" => Kind::LogIn,
        "S:" => Kind::Server,
        "S+" => Kind::ServerReply,
        "T:" => Kind::Tls,
        "M:" => Kind::Mail,
        "C--" => Kind::ClientCloses,
        "S--" => Kind::ServerCloses,
        _ => return Err(format!("no line begins with {tag:?}")),
    };
    let silent = matches!(kind, Kind::Tls | Kind::ClientCloses | Kind::ServerCloses);
    if silent && !text.is_empty() {
        return Err(format!("nothing follows {tag}"));
    }
    Ok(Line {
        number,
        kind,
        times,
        text: text.to_owned(),
    })
}

/// `C*3:` is `C:` three times.
fn repeated(tag: &str) -> Result<(String, usize), String> {
    let Some((side, rest)) = tag.split_once('*') else {
        return Ok((tag.to_owned(), 1));
    };
    let digits = rest.trim_end_matches([':', '!', '+']);
    let times = digits
        .parse()
        .map_err(|_| format!("no number: {digits:?}"))?;
    let sign = rest.get(digits.len()..).unwrap_or_default();
    Ok((format!("{side}{sign}"), times))
}
