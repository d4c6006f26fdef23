//! The recipients of a mail in as many transactions, on as many connections, as the host bears: what it says of itself by LIMITS
//! (RFC 9422), and what it says of too many recipients (RFC 5321 §4.5.3.1.10).

use std::collections::VecDeque;

use postroad_address::ForwardPath;
use postroad_reply::{
    EXCEEDED_STORAGE_552, INSUFFICIENT_STORAGE_452, Reply, SERVICE_NOT_AVAILABLE_421, Severity,
    TOO_MANY_RECIPIENTS_4_5_3,
};
use postroad_smtp::{Capabilities, Extension};
use postroad_smtp_session::{OutgoingRecipient, RecipientResult, Stage};

/// RFC 5321 §4.5.3.1.8: every host takes so many recipients in one transaction.
const EVERYBODY_TAKES: usize = 100;

/// What a host takes; none: any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bearing {
    /// RCPTMAX: recipients of one transaction.
    recipients: Option<usize>,
    /// RCPTDOMAINMAX: different domains among them.
    domains: Option<usize>,
    /// MAILMAX: transactions of one connection.
    mails: Option<usize>,
}

impl Bearing {
    /// As the host said in its last reply to EHLO. Nought would be no host at all, and is no limit.
    pub fn of(capabilities: &Capabilities) -> Self {
        let limit = |name| {
            let limit = capabilities.limit(name).filter(|limit| *limit > 0)?;
            Some(usize::try_from(limit).unwrap_or(usize::MAX))
        };
        Self {
            recipients: limit("RCPTMAX"),
            domains: limit("RCPTDOMAINMAX"),
            mails: limit("MAILMAX"),
        }
    }

    /// The same host, with one recipient in each transaction.
    pub fn one_each(self) -> Self {
        Self {
            recipients: Some(1),
            ..self
        }
    }

    /// The same host, with one domain in each transaction.
    pub fn one_domain(self) -> Self {
        Self {
            domains: Some(1),
            ..self
        }
    }

    /// How many transactions a connection may have; none: any number.
    pub fn mails(&self) -> Option<usize> {
        self.mails
    }
}

/// What a host sees to itself, of those it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// It was told who wants to hear of success, and tells them (RFC 3461 §5.2.1).
    pub reports: bool,
    /// It is told how much time is left to deliver by (RFC 2852 §4.1.4).
    pub keeps_time: bool,
}

impl Promise {
    /// As the host said in its last reply to EHLO.
    pub fn of(capabilities: &Capabilities) -> Self {
        Self {
            reports: capabilities.offers(&Extension::Dsn),
            keeps_time: capabilities.deliver_by().is_some(),
        }
    }
}

/// Which recipients are still to be asked for at a host, and what it said of the others.
#[derive(Debug)]
pub struct Lots {
    results: Vec<Option<RecipientResult>>,
    promises: Vec<Promise>,
    todo: VecDeque<usize>,
    /// As many as the host took in one transaction, if it refused a whole one for having more.
    learned: Option<usize>,
    /// The lot that was given out last has several domains.
    mixed: bool,
    /// What was said of those that are asked for again without other domains beside them; from then on each domain is by itself.
    in_company: Vec<Option<RecipientResult>>,
    apart: bool,
    /// One of them was taken then.
    company_mattered: bool,
}

impl Lots {
    /// Nobody was asked for yet.
    pub fn new(recipients: usize) -> Self {
        Self {
            results: vec![None; recipients],
            promises: vec![Promise::default(); recipients],
            todo: (0..recipients).collect(),
            learned: None,
            mixed: false,
            in_company: vec![None; recipients],
            apart: false,
            company_mattered: false,
        }
    }

    /// Whether everybody was asked for.
    pub fn is_done(&self) -> bool {
        self.todo.is_empty()
    }

    /// Those of the next transaction, by their positions in `all`; none are left if it is empty.
    pub fn next(&mut self, all: &[OutgoingRecipient], bearing: &Bearing) -> Vec<usize> {
        let (mut lot, mut domains) = (Vec::new(), Vec::new());
        let most = bearing.recipients.unwrap_or(EVERYBODY_TAKES);
        let most = self.learned.map_or(most, |learned| learned.min(most));
        let most_domains = if self.apart { Some(1) } else { bearing.domains };
        for at in std::mem::take(&mut self.todo) {
            let domain = all
                .get(at)
                .map(|recipient| domain_of(&recipient.forward_path));
            let is_known = domains.contains(&domain);
            let full = lot.len() >= most;
            let strange = !is_known && most_domains.is_some_and(|most| domains.len() >= most);
            if full || strange {
                self.todo.push_back(at);
                continue;
            }
            if !is_known {
                domains.push(domain);
            }
            lot.push(at);
        }
        self.mixed = domains.len() > 1;
        lot
    }

    /// What the host said of a lot. Whom it had no room for beside others is asked for again, without the others; all are, if it then
    /// refused the whole mail. So is who may have been refused for the domains beside its own, as some hosts do: nobody fares worse
    /// for having been sent along with others.
    pub fn enter(
        &mut self,
        lot: &[usize],
        results: Vec<Option<RecipientResult>>,
        promise: Promise,
    ) {
        let accepted =
            |result: &Option<RecipientResult>| matches!(result, Some(RecipientResult::Accepted(_)));
        let had_room = results.iter().any(accepted);
        if !had_room && let Some(most) = took_before_too_many(&results) {
            self.learned = Some(most);
            self.todo.extend(lot);
            return;
        }
        for (&at, result) in lot.iter().zip(results) {
            if had_room && result.as_ref().is_some_and(is_one_too_many) {
                self.todo.push_back(at);
                continue;
            }
            if let Some(said) = result
                .as_ref()
                .filter(|said| self.mixed && is_perhaps_for_company(said))
                && let Some(before) = self.in_company.get_mut(at)
            {
                *before = Some(said.clone());
                self.apart = true;
                self.todo.push_back(at);
                continue;
            }
            let before = self.in_company.get_mut(at).and_then(Option::take);
            self.company_mattered |= before.is_some() && accepted(&result);
            if let Some(slot) = self.results.get_mut(at) {
                *slot = result;
            }
            if let Some(slot) = self.promises.get_mut(at) {
                *slot = promise;
            }
        }
    }

    /// The host never heard of this lot: it is the next one, over another connection.
    pub fn give_back(&mut self, lot: &[usize]) {
        for &at in lot.iter().rev() {
            self.todo.push_front(at);
        }
    }

    /// Nobody else is asked for at this host. What it said for a time of those that were to be asked for again stands.
    pub fn give_up(&mut self) {
        for at in std::mem::take(&mut self.todo) {
            let said = self.in_company.get_mut(at).and_then(Option::take);
            if let (Some(slot), Some(said)) = (self.results.get_mut(at), said.filter(is_for_a_time))
            {
                *slot = Some(said);
            }
        }
    }

    /// Whether the host refused somebody beside another domain whom it then took.
    pub fn wants_domains_apart(&self) -> bool {
        self.company_mattered
    }

    /// One for each recipient, in their order: what was said, and what the host sees to.
    pub fn results(self) -> (Vec<Option<RecipientResult>>, Vec<Promise>) {
        (self.results, self.promises)
    }
}

/// How many a host takes that refuses the whole mail if one is too many, such as Exim with `recipients_max_reject`.
fn took_before_too_many(results: &[Option<RecipientResult>]) -> Option<usize> {
    let is_refused_with_all = |result: &&Option<RecipientResult>| {
        let Some(RecipientResult::Refused { stage, reply }) = result else {
            return false;
        };
        let after = matches!(stage, Stage::Data | Stage::Content | Stage::End);
        after && reply.severity() == Severity::Permanent
    };
    let too_many = results.iter().flatten().any(is_one_too_many);
    let took = results.iter().filter(is_refused_with_all).count();
    (too_many && took > 0).then_some(took)
}

/// RFC 5321 §4.5.3.1.10: 452 to RCPT, 552 from older hosts, without another reason in the enhanced code: not about the recipient, but
/// about those before it.
fn is_one_too_many(result: &RecipientResult) -> bool {
    let RecipientResult::Refused {
        stage: Stage::Rcpt,
        reply,
    } = result
    else {
        return false;
    };
    let code = [INSUFFICIENT_STORAGE_452, EXCEEDED_STORAGE_552].contains(&reply.code());
    code && is_about_their_number(reply)
}

/// Some hosts take one domain in a transaction (451 4.3.0 to the RCPT of the second), and a mail that one domain does not want is refused
/// for all at its end. What is said of a mailbox (RFC 3463 §3.2, §3.3) is said of it alone.
fn is_perhaps_for_company(result: &RecipientResult) -> bool {
    let RecipientResult::Refused { stage, reply } = result else {
        return false;
    };
    let of_mailbox = |reply: &Reply| {
        let enhanced = reply.enhanced();
        enhanced.is_some_and(|code| matches!(code.subject(), 1 | 2))
    };
    match stage {
        _ if reply.code() == SERVICE_NOT_AVAILABLE_421 => false,
        Stage::Rcpt => !of_mailbox(reply),
        Stage::Data | Stage::Content | Stage::End => true,
        _ => false,
    }
}

fn is_for_a_time(result: &RecipientResult) -> bool {
    matches!(result, RecipientResult::Refused { reply, .. } if reply.severity() == Severity::Transient)
}

fn is_about_their_number(reply: &Reply) -> bool {
    let number = TOO_MANY_RECIPIENTS_4_5_3;
    let same = |code: postroad_reply::EnhancedStatusCode| {
        (code.subject(), code.detail()) == (number.subject(), number.detail())
    };
    reply.enhanced().is_none_or(same)
}

fn domain_of(path: &ForwardPath) -> Option<String> {
    match path {
        ForwardPath::Mailbox(mailbox) => Some(mailbox.domain().a_label().to_ascii_lowercase()),
        ForwardPath::Postmaster => None,
    }
}

#[cfg(test)]
mod tests {
    use postroad_reply::OK_250;

    use super::*;

    fn bearing(limits: &str) -> Bearing {
        let reply = Reply::plain(OK_250, format!("mx.test\n{limits}"));
        Bearing::of(&Capabilities::from_reply(&reply))
    }

    fn to(addresses: &[&str]) -> Vec<OutgoingRecipient> {
        let one = |address: &&str| OutgoingRecipient {
            forward_path: ForwardPath::Mailbox(address.parse().unwrap()),
            notify: None,
            orcpt: None,
        };
        addresses.iter().map(one).collect()
    }

    fn all_lots(limits: &str, addresses: &[&str]) -> Vec<Vec<usize>> {
        let (all, bearing) = (to(addresses), bearing(limits));
        let mut lots = Lots::new(all.len());
        let mut given = Vec::new();
        while !lots.is_done() {
            given.push(lots.next(&all, &bearing));
        }
        given
    }

    #[test]
    fn a_host_gets_no_more_than_it_bears() {
        let five = ["a@x.test", "b@y.test", "c@X.test", "d@x.test", "e@z.test"];
        for (limits, expected) in [
            ("PIPELINING", vec![vec![0, 1, 2, 3, 4]]),
            ("LIMITS RCPTMAX=2", vec![vec![0, 1], vec![2, 3], vec![4]]),
            (
                "LIMITS RCPTDOMAINMAX=1",
                vec![vec![0, 2, 3], vec![1], vec![4]],
            ),
            (
                "LIMITS rcptmax=3 RCPTDOMAINMAX=2",
                vec![vec![0, 1, 2], vec![3, 4]],
            ),
            // What is no limit is none.
            ("LIMITS RCPTMAX=0 RCPTDOMAINMAX", vec![vec![0, 1, 2, 3, 4]]),
        ] {
            assert_eq!(all_lots(limits, &five), expected, "{limits}");
        }
        let one_each = bearing("LIMITS RCPTMAX=9 MAILMAX=2").one_each();
        let mut lots = Lots::new(5);
        assert_eq!(lots.next(&to(&five), &one_each), [0]);
        assert_eq!((lots.todo.len(), one_each.mails()), (4, Some(2)));
        assert_eq!(bearing("LIMITS RCPTMAX=9").mails(), None);
        assert_eq!(bearing("LIMITS MAILMAX=2").mails(), Some(2));
    }

    #[test]
    fn one_too_many_is_asked_for_again_if_others_were_taken() {
        let refused = |text: &str| {
            let (code, text) = text.split_at(4);
            let code = postroad_reply::ReplyCode::new(code.trim().parse().unwrap()).unwrap();
            let reply = match text.split_once(' ') {
                Some((enhanced, text)) if enhanced.contains('.') => {
                    Reply::new(code, enhanced.parse().unwrap(), text)
                }
                _ => Reply::plain(code, text),
            };
            let stage = Stage::Rcpt;
            Some(RecipientResult::Refused { stage, reply })
        };
        let taken = || Some(RecipientResult::Accepted(Reply::plain(OK_250, "ok")));
        let again = |first: Option<RecipientResult>, second: &str| {
            let mut lots = Lots::new(2);
            let lot = lots.next(&to(&["a@x.test", "b@x.test"]), &Bearing::default());
            lots.enter(&lot, vec![first, refused(second)], Promise::default());
            lots.todo
        };
        for reply in ["452 4.5.3 too many", "452 too many", "552 5.5.3 too many"] {
            assert_eq!(again(taken(), reply), [1], "{reply}");
            assert!(again(refused(reply), reply).is_empty(), "{reply}");
        }
        for reply in ["452 4.2.2 full", "450 4.5.3 busy", "552 5.2.2 full"] {
            assert!(again(taken(), reply).is_empty(), "{reply}");
        }
    }

    fn said(stage: Stage, text: &str) -> Option<RecipientResult> {
        let (code, text) = text.split_once(' ').unwrap();
        let code = postroad_reply::ReplyCode::new(code.parse().unwrap()).unwrap();
        let (enhanced, text) = text.split_once(' ').unwrap();
        let reply = Reply::new(code, enhanced.parse().unwrap(), text);
        Some(match reply.severity() {
            Severity::Completion => RecipientResult::Accepted(reply),
            _ => RecipientResult::Refused { stage, reply },
        })
    }

    #[test]
    fn who_is_refused_beside_another_domain_is_asked_for_without_it() {
        let all = to(&["a@x.test", "b@y.test", "c@y.test", "d@z.test"]);
        let taken = || said(Stage::End, "250 2.0.0 ok");
        let after = |refusal: Option<RecipientResult>| {
            let mut lots = Lots::new(all.len());
            let lot = lots.next(&all, &Bearing::default());
            assert_eq!(lot, [0, 1, 2, 3]);
            let results = vec![taken(), refusal.clone(), refusal.clone(), refusal];
            lots.enter(&lot, results, Promise::default());
            let again = lots.next(&all, &Bearing::default());
            (lots, again)
        };
        let multiple = "451 4.3.0 multiple destination domains are unsupported";
        let (mut lots, again) = after(said(Stage::Rcpt, multiple));
        assert_eq!(again, [1, 2], "those of one domain");
        assert!(!lots.wants_domains_apart());
        lots.enter(&again, vec![taken(), taken()], Promise::default());
        assert!(lots.wants_domains_apart());
        let last = lots.next(&all, &Bearing::default());
        assert_eq!(last, [3]);
        // What is said of it alone is so.
        lots.enter(&last, vec![said(Stage::Rcpt, multiple)], Promise::default());
        assert!(lots.is_done());
        let (results, _) = lots.results();
        assert_eq!(
            results,
            [taken(), taken(), taken(), said(Stage::Rcpt, multiple)]
        );

        for of_mailbox in ["550 5.1.1 nobody", "452 4.2.2 full", "421 4.3.0 bye"] {
            let (_, again) = after(said(Stage::Rcpt, of_mailbox));
            assert!(again.is_empty(), "{of_mailbox}");
        }
    }

    #[test]
    fn a_mail_that_is_refused_for_several_domains_is_sent_to_each() {
        let all = to(&["a@x.test", "b@y.test"]);
        let refused = || said(Stage::End, "554 5.7.1 spam");
        let mut lots = Lots::new(2);
        let lot = lots.next(&all, &Bearing::default());
        lots.enter(&lot, vec![refused(), refused()], Promise::default());
        for at in [0, 1] {
            assert_eq!(lots.next(&all, &Bearing::default()), [at]);
            lots.enter(&[at], vec![refused()], Promise::default());
        }
        assert!(lots.is_done() && !lots.wants_domains_apart());
        assert_eq!(lots.results().0, [refused(), refused()]);
        // Nobody may be failed by a refusal that may have been the other's, if the host says no more.
        for (reply, stays) in [("554 5.7.1 spam", None), ("451 4.7.1 later", Some(()))] {
            let mut lots = Lots::new(2);
            let lot = lots.next(&all, &Bearing::default());
            let results = vec![said(Stage::End, reply), said(Stage::End, reply)];
            lots.enter(&lot, results, Promise::default());
            lots.give_up();
            let stayed = lots.results().0.into_iter().map(|one| one.map(drop));
            assert_eq!(stayed.collect::<Vec<_>>(), [stays, stays], "{reply}");
        }
    }

    #[test]
    fn who_refuses_all_for_one_too_many_gets_fewer() {
        let refused = |stage, code, text: &str| {
            let reply = Reply::plain(postroad_reply::ReplyCode::new(code).unwrap(), text);
            Some(RecipientResult::Refused { stage, reply })
        };
        let all = to(&["a@x.test", "b@x.test", "c@x.test", "d@x.test", "e@x.test"]);
        let told = |behind: Option<RecipientResult>, too_many| {
            let mut lots = Lots::new(5);
            let lot = lots.next(&all, &Bearing::default());
            let mut results = vec![behind.clone(), behind];
            results.extend((0..3).map(|_| refused(Stage::Rcpt, too_many, "too many recipients")));
            lots.enter(&lot, results, Promise::default());
            let mut next = Vec::new();
            while !lots.is_done() {
                next.push(lots.next(&all, &Bearing::default()));
            }
            next
        };
        let pairs = vec![vec![0, 1], vec![2, 3], vec![4]];
        for stage in [Stage::Data, Stage::Content, Stage::End] {
            assert_eq!(told(refused(stage, 554, "too many recipients"), 552), pairs);
        }
        // What is put off as a whole is put off, and who was nobody at RCPT is nobody.
        for behind in [
            refused(Stage::Data, 451, "later"),
            refused(Stage::Rcpt, 550, "no such mailbox"),
        ] {
            assert!(told(behind, 552).is_empty());
        }
        assert!(told(refused(Stage::Data, 554, "no"), 550).is_empty());
    }
}
