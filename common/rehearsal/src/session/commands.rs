//! RFC 5321 §4.1.1, as a good host does it unless the script says otherwise.

use std::sync::Arc;

use super::deeds::Done;
use super::{Around, Deed, Mail, Session, State, limited};
use crate::script::{Stage, Tls};

impl Session {
    pub(super) fn command(&mut self, line: &str, around: &mut Around<'_>) -> Vec<Deed> {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" | "HELO" | "LHLO" => self.hello(verb, around),
            "STARTTLS" => self.start_tls(around),
            "AUTH" => self.auth(argument, around),
            "MAIL" => self.mail(argument, around),
            "RCPT" => self.rcpt(argument, around),
            "DATA" => self.data(around),
            "BDAT" => self.bdat(argument, around),
            "RSET" => {
                self.mail = None;
                self.at(Stage::Reset, None, "250 2.0.0 reset", around).deeds
            }
            "NOOP" => self.at(Stage::Noop, None, "250 2.0.0 here", around).deeds,
            "QUIT" => {
                let mut done = self.at(Stage::Quit, None, "221 2.0.0 good-bye", around);
                if !done.is_over {
                    done.deeds.push(Deed::Close);
                }
                done.deeds
            }
            _ => {
                let unknown = "500 5.5.1 this command is not known";
                self.at(Stage::Other, None, unknown, around).deeds
            }
        }
    }

    fn hello(&mut self, verb: &str, around: &mut Around<'_>) -> Vec<Deed> {
        let is_lhlo = verb.eq_ignore_ascii_case("LHLO");
        // RFC 2033 §4.1: only one of them is there.
        if is_lhlo != self.is_lmtp() {
            let known = if is_lhlo { "EHLO" } else { "LHLO" };
            return Done::well(&format!("500 5.5.1 say {known}")).deeds;
        }
        let mut lines = vec![self.script.name.clone()];
        if !verb.eq_ignore_ascii_case("HELO") {
            lines.extend(self.offers());
        }
        let last = lines.len() - 1;
        let lines = lines.iter().enumerate().map(|(at, line)| {
            let dash = if at == last { ' ' } else { '-' };
            format!("250{dash}{line}")
        });
        let reply = lines.collect::<Vec<_>>().join("\n");
        let done = self.at(Stage::Hello, None, &reply, around);
        if done.is_positive() {
            self.greeted = true;
            self.mail = None;
        }
        done.deeds
    }

    fn offers(&self) -> Vec<String> {
        let script = &self.script;
        let usual = || {
            let size = format!("SIZE {}", script.size);
            let words = ["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"];
            let words = words.into_iter().map(ToOwned::to_owned);
            words.chain([size]).collect()
        };
        let offers = match &script.offers_under_tls {
            Some(offers) if self.tls => Some(offers),
            _ => script.offers.as_ref(),
        };
        let mut offers = offers.cloned().unwrap_or_else(usual);
        if script.tls == Tls::StartTls && !self.tls {
            offers.push("STARTTLS".to_owned());
        }
        offers
    }

    fn start_tls(&mut self, around: &mut Around<'_>) -> Vec<Deed> {
        if self.tls || self.script.tls != Tls::StartTls {
            return Done::well("502 5.5.1 there is no STARTTLS here").deeds;
        }
        let done = self.at(Stage::StartTls, None, "220 2.0.0 go ahead", around);
        let mut deeds = done.deeds;
        if done.code == Some(220) && !done.is_over {
            deeds.extend(self.handshake(around).deeds);
            // RFC 3207 §4.2: what was said before is forgotten.
            (self.greeted, self.mail) = (false, None);
        }
        deeds
    }

    fn mail(&mut self, argument: &str, around: &mut Around<'_>) -> Vec<Deed> {
        if !self.greeted {
            return Done::well("503 5.5.1 say EHLO first").deeds;
        }
        if self.mail.is_some() {
            return Done::well("503 5.5.1 there is a mail already").deeds;
        }
        let script = Arc::clone(&self.script);
        if let Some(limit) = &script.limits.per_connection
            && self.mails >= limit.most
        {
            return limited(&limit.reply);
        }
        if let Some(reply) = around.tally.mail(&script, around.now) {
            return limited(reply);
        }
        around.tally.mails += 1;
        self.mails += 1;
        self.mail = Some(Mail {
            number: around.tally.mails,
            from: path(argument),
            ..Mail::default()
        });
        let announced = parameter(argument, "SIZE").and_then(|size| size.parse::<u64>().ok());
        let well = match announced {
            Some(size) if size > script.size => "552 5.3.4 the mail is too large",
            _ => "250 2.1.0 sender ok",
        };
        let done = self.at(Stage::Mail, None, well, around);
        if !done.is_positive() {
            self.mail = None;
        }
        done.deeds
    }

    fn rcpt(&mut self, argument: &str, around: &mut Around<'_>) -> Vec<Deed> {
        let Some(mail) = &self.mail else {
            return Done::well("503 5.5.1 say MAIL first").deeds;
        };
        let script = Arc::clone(&self.script);
        let to = path(argument);
        let count = u64::try_from(mail.to.len()).unwrap_or(u64::MAX);
        if let Some(limit) = &script.limits.recipients
            && count >= limit.most
        {
            return limited(&limit.reply);
        }
        if let Some(reply) = around.tally.greylist(&script, &mail.from, &to, around.now) {
            return limited(reply);
        }
        let done = self.at(Stage::Rcpt, Some(&to), "250 2.1.5 recipient ok", around);
        if let Some(mail) = &mut self.mail
            && done.is_positive()
        {
            mail.to.push(to);
        }
        done.deeds
    }

    fn data(&mut self, around: &mut Around<'_>) -> Vec<Deed> {
        match &self.mail {
            None => return Done::well("503 5.5.1 say MAIL first").deeds,
            Some(mail) if mail.to.is_empty() => {
                return Done::well("554 5.5.1 no valid recipients").deeds;
            }
            Some(_) => {}
        }
        let done = self.at(Stage::Data, None, "354 go ahead", around);
        if done.code == Some(354) {
            self.state = State::Content;
        }
        done.deeds
    }

    fn bdat(&mut self, argument: &str, around: &mut Around<'_>) -> Vec<Deed> {
        let mut words = argument.split_whitespace();
        let size = words.next().and_then(|size| size.parse::<u64>().ok());
        let last = words
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case("LAST"));
        let Some(left) = size else {
            return vec![Deed::Close];
        };
        self.state = State::Chunk { left, last };
        // An empty last chunk is complete as it stands.
        let mut nothing = bytes::BytesMut::new();
        self.chunk(&mut nothing, around).unwrap_or_default()
    }
}

/// What stands between the brackets of `FROM:<a@b> SIZE=3`.
fn path(argument: &str) -> String {
    let inside = argument
        .split_once('<')
        .and_then(|(_, rest)| rest.rsplit_once('>'));
    inside.map_or(String::new(), |(path, _)| path.to_owned())
}

fn parameter<'a>(argument: &'a str, key: &str) -> Option<&'a str> {
    let (_, parameters) = argument.rsplit_once('>')?;
    let mut pairs = parameters
        .split_whitespace()
        .filter_map(|word| word.split_once('='));
    let found = pairs.find(|(known, _)| known.eq_ignore_ascii_case(key));
    found.map(|(_, value)| value)
}
