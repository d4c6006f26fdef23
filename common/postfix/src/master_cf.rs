//! master.cf: the services (master(5)).

use crate::{
    lines::{LogicalLine, fields, in_braces, logical_lines, offset_of},
    main_cf::{Setting, setting},
};

/// Columns before the command: name, kind, private, unprivileged, chroot, wakeup, most processes.
const COLUMNS: usize = 7;

/// A line of master.cf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// For `inet` where it listens, else its name.
    pub name: String,
    /// `inet`, `unix`, `fifo`, `pass`.
    pub kind: String,
    /// Most processes; none: `default_process_limit`.
    pub most: Option<u32>,
    /// The program.
    pub command: String,
    /// `-o name=value`, each with its line.
    pub options: Vec<Setting>,
    /// Other arguments.
    pub arguments: Vec<String>,
    /// Where, counted from 1.
    pub line: usize,
}

/// The services, and the lines that are none.
pub fn parse(text: &str) -> (Vec<Service>, Vec<usize>) {
    let (mut services, mut others) = (Vec::new(), Vec::new());
    for line in logical_lines(text) {
        match service(&line) {
            Some(service) => services.push(service),
            None => others.push(line.line),
        }
    }
    (services, others)
}

fn service(line: &LogicalLine) -> Option<Service> {
    let all = fields(&line.text);
    let [name, kind, _, _, _, _, most, command, arguments @ ..] = all.as_slice() else {
        return None;
    };
    debug_assert!(all.len() > COLUMNS);
    let mut service = Service {
        name: (*name).to_owned(),
        kind: (*kind).to_owned(),
        most: most.parse().ok(),
        command: (*command).to_owned(),
        options: Vec::new(),
        arguments: Vec::new(),
        line: line.line,
    };
    let mut rest = arguments.iter();
    while let Some(&word) = rest.next() {
        let option = match word.strip_prefix("-o") {
            Some("") => rest.next().copied(),
            Some(joined) => Some(joined),
            None => None,
        };
        let at = line.line_at(offset_of(&line.text, word));
        let option = option.map(|text| in_braces(text).unwrap_or(text));
        match option.and_then(|text| setting(text, at)) {
            Some(option) => service.options.push(option),
            None => service.arguments.push(word.to_owned()),
        }
    }
    Some(service)
}

impl Service {
    /// The value an option gives, if one does.
    pub fn option(&self, name: &str) -> Option<&str> {
        let mut options = self.options.iter().rev();
        let found = options.find(|option| option.name == name);
        found.map(|option| option.value.as_str())
    }

    /// The port of an `inet` service, and the address if one is named.
    pub fn listens(&self) -> (Option<&str>, &str) {
        match self.name.rsplit_once(':') {
            Some((host, port)) => (Some(host.trim_matches(['[', ']'])), port),
            None => (None, &self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_have_options_in_every_form() {
        let text = "smtp inet n - y - - smtpd\n# no\nsubmission inet n - y - 20 smtpd\n  -o a=b -oc=d,e\n  -o { f = g h }\n  -v\n\
            x unix - n n - - pipe\n  flags=R argv=/bin/x ${recipient}\nshort line\n";
        let (services, others) = parse(text);
        assert_eq!(others, [9]);
        assert_eq!(services.len(), 3);
        let submission = &services[1];
        assert_eq!((submission.most, submission.line), (Some(20), 3));
        let options = submission.options.iter();
        let options: Vec<_> = options
            .map(|o| (o.name.as_str(), o.value.as_str(), o.line))
            .collect();
        assert_eq!(options, [("a", "b", 4), ("c", "d,e", 4), ("f", "g h", 5)]);
        assert_eq!(submission.arguments, ["-v"]);
        assert_eq!(services[2].arguments.len(), 3);
    }

    #[test]
    fn a_service_may_name_its_address() {
        let (services, _) =
            parse("127.0.0.1:10025 inet n - y - - smtpd\n[::1]:26 inet n - y - - smtpd\n");
        assert_eq!(services[0].listens(), (Some("127.0.0.1"), "10025"));
        assert_eq!(services[1].listens(), (Some("::1"), "26"));
    }
}
