//! What a try showed of the site, whatever became of the mail: the queue learns from it how much the site takes.

use postroad_queue_client::{SiteResult, SiteTrouble};
use postroad_reply::{Reply, Severity};
use postroad_smtp_session::{ClientError, RecipientResult, Stage};

use super::trouble::{Disposition, Trouble};

/// Gathered over all hosts that were tried.
#[derive(Debug, Default)]
pub struct SiteNote {
    result: SiteResult,
    hosts: u32,
    unreachable: u32,
}

impl SiteNote {
    /// One host was tried, to which so many connections were opened.
    pub fn enter(&mut self, host: &str, opened: u32, disposition: &Disposition) {
        self.hosts += 1;
        self.result.connections += opened;
        let results = disposition.results.iter().flatten();
        if results.clone().any(is_answer) {
            self.result.mails += 1;
        }
        let postponed = results.into_iter().find_map(postponed);
        if let Some(reply) = postponed {
            self.refused(SiteTrouble::AtMail, host, Some(reply), reply.to_string());
        }
        match disposition.trouble.as_ref().and_then(about_site) {
            Some(SiteTrouble::Unreachable) => {
                self.unreachable += 1;
                let text = disposition.trouble.as_ref().map(ToString::to_string);
                self.tell(host, text.unwrap_or_default());
            }
            Some(trouble) => {
                let what = disposition.trouble.as_ref();
                let reply = what.and_then(Trouble::reply);
                let text = match (reply, what) {
                    (Some(reply), _) => reply.to_string(),
                    (None, what) => what.map(ToString::to_string).unwrap_or_default(),
                };
                self.refused(trouble, host, reply, text);
            }
            None => {}
        }
    }

    fn refused(&mut self, trouble: SiteTrouble, host: &str, reply: Option<&Reply>, text: String) {
        if self.result.trouble >= Some(trouble) {
            return;
        }
        self.result.trouble = Some(trouble);
        self.result.reply = reply.cloned();
        self.result.text = format!("{host}: {text}");
    }

    fn tell(&mut self, host: &str, text: String) {
        if self.result.trouble.is_none() {
            self.result.text = format!("{host}: {text}");
        }
    }

    /// All hosts were tried that had to be.
    pub fn finish(self) -> SiteResult {
        let Self {
            mut result,
            hosts,
            unreachable,
        } = self;
        if hosts > 0 && unreachable == hosts {
            result.trouble = Some(SiteTrouble::Unreachable);
        }
        if result.trouble.is_none() {
            result.text.clear();
        }
        result
    }
}

/// The host took the mail, or refused it for good: it is at work.
fn is_answer(result: &RecipientResult) -> bool {
    match result {
        RecipientResult::Accepted(_) => true,
        RecipientResult::Refused { reply, .. } => reply.severity() == Severity::Permanent,
        RecipientResult::Unfit { .. } => false,
    }
}

fn postponed(result: &RecipientResult) -> Option<&Reply> {
    match result {
        RecipientResult::Refused { reply, .. } if reply.severity() == Severity::Transient => {
            Some(reply)
        }
        _ => None,
    }
}

/// What is about the site, rather than about the mail, a password, a certificate or ourselves.
fn about_site(trouble: &Trouble) -> Option<SiteTrouble> {
    match trouble {
        // A host without a greeting costs as much as one that is away.
        Trouble::Connect(_)
        | Trouble::TimedOut(Stage::Greeting)
        | Trouble::HungUp(Stage::Greeting)
        | Trouble::Broken(Stage::Greeting, _) => Some(SiteTrouble::Unreachable),
        Trouble::HungUp(_)
        | Trouble::TimedOut(_)
        | Trouble::Broken(..)
        | Trouble::Session(ClientError::Refused { .. } | ClientError::Unexpected { .. }) => {
            Some(match trouble.stage() {
                Stage::Greeting | Stage::Hello | Stage::StartTls => SiteTrouble::AtConnect,
                Stage::Auth => return None,
                _ => SiteTrouble::AtMail,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use postroad_reply::ReplyCode;

    use super::super::lots::Promise;
    use super::*;

    fn reply(code: u16, text: &str) -> Reply {
        Reply::plain(ReplyCode::new(code).unwrap(), text)
    }

    fn disposition(results: Vec<RecipientResult>, trouble: Option<Trouble>) -> Disposition {
        Disposition {
            promises: vec![Promise::default(); results.len()],
            results: results.into_iter().map(Some).collect(),
            trouble,
            ..Disposition::default()
        }
    }

    fn of(dispositions: &[Disposition]) -> SiteResult {
        let mut note = SiteNote::default();
        for disposition in dispositions {
            note.enter("mx.test", 1, disposition);
        }
        note.finish()
    }

    #[test]
    fn what_is_about_the_site_is_told_apart_from_what_is_about_the_mail() {
        let broken = |stage| Trouble::Broken(stage, io::ErrorKind::ConnectionReset.into());
        let refused = |stage, code| {
            Trouble::Session(ClientError::Refused {
                stage,
                reply: reply(code, "no"),
            })
        };
        let at = |code| RecipientResult::Refused {
            stage: Stage::Rcpt,
            reply: reply(code, "no"),
        };
        let taken = || RecipientResult::Accepted(reply(250, "ok"));
        for (results, trouble, expected, mails) in [
            (vec![taken()], None, None, 1),
            (vec![at(550)], None, None, 1),
            (vec![at(450)], None, Some(SiteTrouble::AtMail), 0),
            (vec![taken(), at(450)], None, Some(SiteTrouble::AtMail), 1),
            (
                vec![],
                Some(refused(Stage::Greeting, 421)),
                Some(SiteTrouble::AtConnect),
                0,
            ),
            (vec![], Some(refused(Stage::Auth, 535)), None, 0),
            (
                vec![],
                Some(broken(Stage::Hello)),
                Some(SiteTrouble::AtConnect),
                0,
            ),
            (
                vec![],
                Some(broken(Stage::End)),
                Some(SiteTrouble::AtMail),
                0,
            ),
            (
                vec![],
                Some(broken(Stage::Greeting)),
                Some(SiteTrouble::Unreachable),
                0,
            ),
        ] {
            let result = of(&[disposition(results, trouble)]);
            assert_eq!(
                (result.trouble, result.mails),
                (expected, mails),
                "{result:?}"
            );
        }
    }

    #[test]
    fn a_site_is_away_only_if_all_of_its_hosts_are() {
        let away = || disposition(vec![], Some(Trouble::TimedOut(Stage::Greeting)));
        let taken = || {
            let taken = RecipientResult::Accepted(reply(250, "ok"));
            disposition(vec![taken], None)
        };
        assert_eq!(
            of(&[away(), away()]).trouble,
            Some(SiteTrouble::Unreachable)
        );
        assert_eq!(of(&[away(), taken()]).trouble, None);
        assert_eq!(of(&[]).trouble, None);
    }
}
