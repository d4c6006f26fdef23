//! The content of a mail, by DATA or in chunks.

use bytes::{Buf as _, BytesMut};

use super::deeds::Done;
use super::{Around, Deed, Mail, Session, State};
use crate::event::Taken;
use crate::script::Stage;

/// What has come of a mail.
#[derive(Default)]
pub struct Content {
    octets: u64,
    text: Vec<u8>,
    /// The rule for `content` was followed.
    disturbed: bool,
}

impl Content {
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Beyond the limit it is only counted.
    fn push(&mut self, part: &[u8], limit: u64) {
        let count = u64::try_from(part.len()).unwrap_or(u64::MAX);
        self.octets = self.octets.saturating_add(count);
        if self.octets <= limit {
            self.text.extend_from_slice(part);
        }
    }
}

impl Session {
    /// RFC 5321 §4.5.2: up to the line with a dot.
    pub(super) fn content(
        &mut self,
        input: &mut BytesMut,
        around: &mut Around<'_>,
    ) -> Option<Vec<Deed>> {
        loop {
            if let Some(deeds) = self.disturb(around) {
                return Some(deeds);
            }
            let end = input.iter().position(|&octet| octet == b'\n')?;
            let line = input.split_to(end + 1);
            let size = self.script.size;
            let mail = self.mail.get_or_insert_default();
            match line.strip_prefix(b".") {
                Some(b"\r\n") => return Some(self.complete(around)),
                Some(rest) => mail.content.push(rest, size),
                None => mail.content.push(&line, size),
            }
        }
    }

    /// RFC 3030 §2.
    pub(super) fn chunk(
        &mut self,
        input: &mut BytesMut,
        around: &mut Around<'_>,
    ) -> Option<Vec<Deed>> {
        let State::Chunk { left, last } = self.state else {
            return None;
        };
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let size = self.script.size;
        if let Some(mail) = &mut self.mail {
            mail.content
                .push(input.get(..count).unwrap_or_default(), size);
        }
        input.advance(count);
        let left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        self.state = State::Chunk { left, last };
        if let Some(deeds) = self.disturb(around) {
            return Some(deeds);
        }
        if left > 0 {
            return None;
        }
        self.state = State::Commands;
        let is_fit = self.mail.as_ref().is_some_and(|mail| !mail.to.is_empty());
        Some(match (is_fit, last) {
            (false, _) => Done::well("503 5.5.1 there is no mail with recipients").deeds,
            (true, true) => self.complete(around),
            (true, false) => {
                let done = self.at(Stage::Chunk, None, "250 2.0.0 chunk ok", around);
                if !done.is_positive() {
                    self.mail = None;
                }
                done.deeds
            }
        })
    }

    /// What the script does while content comes, once for each mail.
    fn disturb(&mut self, around: &mut Around<'_>) -> Option<Vec<Deed>> {
        if self.mail.as_ref().is_none_or(|mail| mail.content.disturbed) {
            return None;
        }
        let done = self.at(Stage::Content, None, "", around);
        if done.deeds.is_empty() {
            return None;
        }
        self.mail.as_mut()?.content.disturbed = true;
        Some(done.deeds)
    }

    fn complete(&mut self, around: &mut Around<'_>) -> Vec<Deed> {
        self.state = State::Commands;
        let (deeds, kept) = match self.is_lmtp() {
            true => self.complete_for_each(around),
            false => {
                let done = self.end(None, around);
                let keeps = done.keeps || done.is_positive();
                let to = self
                    .mail
                    .as_ref()
                    .filter(|_| keeps)
                    .map(|mail| mail.to.clone());
                (done.deeds, to.unwrap_or_default())
            }
        };
        let Some(mail) = self.mail.take() else {
            return deeds;
        };
        if kept.is_empty() {
            return deeds;
        }
        let taken = Box::new(self.taken(mail, kept));
        // It is safe before anybody hears of it.
        std::iter::once(Deed::Keep(taken)).chain(deeds).collect()
    }

    /// RFC 2033 §4.2: a reply for each recipient.
    fn complete_for_each(&mut self, around: &mut Around<'_>) -> (Vec<Deed>, Vec<String>) {
        let recipients = self.mail.as_ref().map(|mail| mail.to.clone());
        let (mut deeds, mut kept) = (Vec::new(), Vec::new());
        for to in recipients.unwrap_or_default() {
            let done = self.end(Some(&to), around);
            if done.keeps || done.is_positive() {
                kept.push(to);
            }
            deeds.extend(done.deeds);
            if done.is_over {
                break;
            }
        }
        (deeds, kept)
    }

    fn end(&mut self, to: Option<&str>, around: &mut Around<'_>) -> Done {
        let mail = self.mail.as_ref();
        let well = match mail {
            Some(mail) if mail.content.octets > self.script.size => {
                "552 5.3.4 the mail is too large".to_owned()
            }
            mail => format!(
                "250 2.0.0 mail {} taken",
                mail.map_or(0, |mail| mail.number)
            ),
        };
        self.at(Stage::End, to, &well, around)
    }

    fn taken(&self, mail: Mail, to: Vec<String>) -> Taken {
        Taken {
            number: mail.number,
            from: mail.from,
            to,
            size: usize::try_from(mail.content.octets).unwrap_or(usize::MAX),
            content: mail.content.text,
            tls: self.tls,
            login: self.login.clone(),
        }
    }
}
