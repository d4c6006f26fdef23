//! What became of each recipient of a job, over all hosts that were tried.

use postroad_envelope::{
    Outcome, Recipient, RecipientIndex, RemoteHost, Stage as Reached, StatusReport, TlsFacts,
};
use postroad_reply::{
    EnhancedStatusCode, NO_ANSWER_4_4_1, PERMANENT_5_0_0, REQUIRETLS_NEEDED_5_7_30, Reply,
    SERVICE_NOT_AVAILABLE_421, SUCCESS_2_0_0, Severity, TRANSIENT_4_0_0,
};
use postroad_smtp_session::{RecipientResult, Stage};

use super::next_hop::Candidate;
use super::trouble::{Disposition, Trouble};
use super::unusable::{Unusable, wants_login};

/// Octets of text for a person; several hosts may each have had something to say.
const MAX_TEXT: usize = 1000;

/// The recipients of a job; an outcome once given stays.
pub struct Ledger<'a> {
    hop: Hop,
    entries: Vec<(&'a Recipient, Option<Outcome>)>,
    /// Of whom the host that took the mail reports success.
    reporting: Vec<RecipientIndex>,
    /// For whom it was told how much time is left.
    timed: Vec<RecipientIndex>,
    /// Whose outcome came over a connection that had carried other mail before.
    reused: Vec<RecipientIndex>,
    /// What was in the way at each host, for those who end without an outcome.
    troubles: Vec<StatusReport>,
}

/// What our own configuration says of the next hop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hop {
    /// A route of ours names it.
    pub routed: bool,
    /// It has an entry in `mta.outbound.hosts`.
    pub listed: bool,
}

impl<'a> Ledger<'a> {
    /// Nobody was tried yet.
    pub fn new(recipients: &'a [Recipient]) -> Self {
        Self {
            hop: Hop::default(),
            entries: recipients.iter().map(|r| (r, None)).collect(),
            reporting: Vec::new(),
            timed: Vec::new(),
            reused: Vec::new(),
            troubles: Vec::new(),
        }
    }

    /// What follows is of this next hop.
    pub fn head_for(&mut self, hop: Hop) {
        self.hop = hop;
    }

    /// A next hop is not tried, for this reason.
    pub fn pass_over(&mut self, report: StatusReport) {
        self.troubles.push(report);
    }

    /// Those without an outcome.
    pub fn pending(&self) -> impl Iterator<Item = &'a Recipient> {
        let open = self.entries.iter().filter(|(_, outcome)| outcome.is_none());
        open.map(|(recipient, _)| *recipient)
    }

    /// Whether everybody has an outcome.
    pub fn is_settled(&self) -> bool {
        self.pending().next().is_none()
    }

    /// Everybody without an outcome gets this one.
    pub fn settle_rest(&mut self, outcome: &Outcome) {
        for (_, slot) in &mut self.entries {
            slot.get_or_insert_with(|| outcome.clone());
        }
    }

    /// Those that were relayed to a host that reports success itself.
    pub fn reporting(&self) -> Vec<RecipientIndex> {
        self.reporting.clone()
    }

    /// Those that were relayed to a host that was told how much time is left, if there is any such thing.
    pub fn timed(&self) -> Vec<RecipientIndex> {
        self.timed.clone()
    }

    /// Those whose outcome came over a connection that had carried other mail before.
    pub fn reused(&self) -> Vec<RecipientIndex> {
        self.reused.clone()
    }

    /// What was in the way at the host that was tried last.
    pub fn last_trouble(&self) -> Option<&StatusReport> {
        self.troubles.last()
    }

    /// Enters what a conversation brought for those who were [`pending`](Self::pending) at its beginning.
    pub fn enter(&mut self, candidate: &Candidate, disposition: Disposition) {
        let Disposition {
            results,
            promises,
            trouble,
            tls,
            security,
            reused,
            overtook: _,
        } = disposition;
        let host = Host {
            candidate,
            tls,
            security,
            hop: self.hop,
        };
        let mut postponed = None;
        let open = self
            .entries
            .iter_mut()
            .filter(|(_, outcome)| outcome.is_none());
        for (((recipient, slot), result), promise) in open.zip(results).zip(promises) {
            match result.map(|result| host.judge(result)) {
                Some(Judgement::Final(outcome)) => {
                    let relayed = matches!(outcome, Outcome::Relayed(_));
                    if relayed && promise.reports {
                        self.reporting.push(recipient.index);
                    }
                    if relayed && promise.keeps_time {
                        self.timed.push(recipient.index);
                    }
                    if reused {
                        self.reused.push(recipient.index);
                    }
                    *slot = Some(outcome);
                }
                Some(Judgement::ElseWhere(report)) => postponed = Some(report),
                None => {}
            }
        }
        self.troubles.extend(postponed);
        let Some(trouble) = trouble else { return };
        let report = host.trouble(&trouble);
        self.troubles.push(report.clone());
        if matches!(trouble, Trouble::Unfit(_)) {
            self.settle_rest(&Outcome::Failed(report));
        } else if is_last_word(&trouble) {
            self.settle_rest(&Outcome::Delayed(report));
        }
    }

    /// No host is left: who has no outcome gets one from what was in the way. Only if every host refused for good
    /// is that for good.
    pub fn finish(mut self) -> Vec<(RecipientIndex, Outcome)> {
        let troubles = std::mem::take(&mut self.troubles);
        let text: Vec<&str> = troubles.iter().map(|report| report.text.as_str()).collect();
        let text = shortened(text.join("; "));
        let permanent = troubles.iter().all(|report| report.status.class() == 5);
        let decisive = troubles
            .into_iter()
            .rfind(|report| permanent || report.status.class() != 5);
        let outcome = match decisive {
            Some(report) if permanent => Outcome::Failed(StatusReport { text, ..report }),
            Some(report) => Outcome::Delayed(StatusReport { text, ..report }),
            None => Outcome::Delayed(StatusReport::local(NO_ANSWER_4_4_1, "no host was tried")),
        };
        self.settle_rest(&outcome);
        let settled = self.entries.into_iter();
        settled
            .filter_map(|(recipient, outcome)| Some((recipient.index, outcome?)))
            .collect()
    }
}

/// Whether no other host may be asked: behind the final dot this one may have taken the mail (RFC 1047), and content
/// that cannot be read cannot be read for another either.
fn is_last_word(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Content(_)) || trouble.stage() == Stage::End
}

enum Judgement {
    Final(Outcome),
    /// Another host may take it (RFC 5321 §5.1).
    ElseWhere(StatusReport),
}

/// A host with what to call it.
struct Host<'a> {
    candidate: &'a Candidate,
    hop: Hop,
    tls: Option<TlsFacts>,
    security: Option<String>,
}

impl Host<'_> {
    fn judge(&self, result: RecipientResult) -> Judgement {
        match result {
            RecipientResult::Accepted(reply) => {
                let text = format!("{} took the mail: {reply}", self.name());
                Judgement::Final(Outcome::Relayed(self.report(Stage::End, reply, text)))
            }
            RecipientResult::Refused { stage, reply } => self.refused(stage, reply),
            RecipientResult::Unfit { status, text } => {
                let text = format!("{}: {text}", self.name());
                let remote = Some(self.remote());
                let report = StatusReport {
                    status,
                    text,
                    remote,
                    reply: None,
                    stage: Some(Reached::Mail),
                    cause: None,
                };
                match status {
                    // RFC 8689 §4.2.1: another mail host of the domain may have it.
                    REQUIRETLS_NEEDED_5_7_30 => Judgement::ElseWhere(report),
                    _ => Judgement::Final(Outcome::Failed(report)),
                }
            }
        }
    }

    fn refused(&self, stage: Stage, reply: Reply) -> Judgement {
        let severity = reply.severity();
        let leaves = reply.code() == SERVICE_NOT_AVAILABLE_421 && stage != Stage::End;
        let text = format!("{} said {}: {reply}", self.name(), answering(stage));
        if self.hop.routed && wants_login(&reply) {
            return Judgement::ElseWhere(self.login_missing(stage, reply, text));
        }
        let report = self.report(stage, reply, text);
        match severity {
            // A host that has no time for anybody now; 421 and a refused MAIL are not about the recipient.
            Severity::Transient if leaves || stage == Stage::Mail => Judgement::ElseWhere(report),
            Severity::Permanent => Judgement::Final(Outcome::Failed(report)),
            _ => Judgement::Final(Outcome::Delayed(report)),
        }
    }

    /// The host that our route names wants us to log in: our fault, not the mail's.
    fn login_missing(&self, stage: Stage, reply: Reply, text: String) -> StatusReport {
        let unusable = Unusable::LoginMissing;
        let status = unusable.status(Some(&reply));
        let text = with_remedy(text, unusable.remedy(self.hop.listed));
        StatusReport {
            status,
            ..self.report(stage, reply, text)
        }
    }

    fn trouble(&self, trouble: &Trouble) -> StatusReport {
        let unusable = Unusable::of(trouble);
        let text = match (trouble.reply(), trouble.stage()) {
            (Some(reply), stage) => {
                format!("{} said {}: {reply}", self.name(), answering(stage))
            }
            (None, _) if matches!(trouble, Trouble::Content(_) | Trouble::Unfit(_)) => {
                trouble.to_string()
            }
            (None, _) => format!("{}: {trouble}", self.name()),
        };
        let refusal =
            |reply: &&Reply| matches!(reply.severity(), Severity::Transient | Severity::Permanent);
        // A yes where none was asked for is no status to show.
        let said = trouble
            .reply()
            .filter(|_| unusable.is_none())
            .filter(refusal);
        let remedy = unusable.and_then(|unusable| unusable.remedy(self.hop.listed));
        StatusReport {
            status: said.map_or(trouble.status(), status),
            text: with_remedy(text, remedy),
            remote: Some(self.remote()),
            reply: trouble.reply().cloned(),
            stage: match trouble {
                Trouble::Connect(_) => Some(Reached::Connect),
                trouble => reached(trouble.stage()),
            },
            cause: None,
        }
    }

    fn report(&self, stage: Stage, reply: Reply, text: String) -> StatusReport {
        StatusReport {
            status: status(&reply),
            text,
            remote: Some(self.remote()),
            reply: Some(reply),
            stage: reached(stage),
            cause: None,
        }
    }

    fn remote(&self) -> RemoteHost {
        RemoteHost {
            tls_policy: self.security.clone(),
            ..self.candidate.remote(self.tls.clone())
        }
    }

    fn name(&self) -> String {
        self.candidate.name()
    }
}

/// The host's enhanced status code, else the class alone (RFC 3463 §3.1).
fn status(reply: &Reply) -> EnhancedStatusCode {
    reply.enhanced().unwrap_or(match reply.severity() {
        Severity::Completion => SUCCESS_2_0_0,
        Severity::Permanent => PERMANENT_5_0_0,
        Severity::Transient | Severity::Intermediate => TRANSIENT_4_0_0,
    })
}

/// The same for whoever the outcome is told to.
fn reached(stage: Stage) -> Option<Reached> {
    Some(match stage {
        Stage::Greeting => Reached::Greeting,
        Stage::Hello => Reached::Hello,
        Stage::StartTls => Reached::Tls,
        Stage::Auth => Reached::Auth,
        Stage::Mail | Stage::Reset => Reached::Mail,
        Stage::Rcpt => Reached::Rcpt,
        Stage::Data => Reached::Data,
        Stage::Content => Reached::Content,
        Stage::End => Reached::End,
        Stage::Quit | Stage::Idle => return None,
    })
}

/// What a reply answers, for a person.
fn answering(stage: Stage) -> &'static str {
    match stage {
        Stage::Greeting => "as its greeting",
        Stage::Hello => "to EHLO",
        Stage::StartTls => "to STARTTLS",
        Stage::Auth => "to AUTH",
        Stage::Reset => "to RSET",
        Stage::Mail => "to MAIL FROM",
        Stage::Rcpt => "to RCPT TO",
        Stage::Data => "to DATA",
        Stage::Content => "while the content was sent",
        Stage::End => "to the content",
        Stage::Quit | Stage::Idle => "at the end",
    }
}

/// What is wrong, and what a person can do.
fn with_remedy(text: String, remedy: Option<&'static str>) -> String {
    match remedy {
        Some(remedy) => format!("{text}; {remedy}"),
        None => text,
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let end = text.floor_char_boundary(MAX_TEXT);
        text.truncate(end);
        text.push('…');
    }
    text
}
