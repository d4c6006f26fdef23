//! What a cause means for the sender of a mail, and what to do about it.

use postroad_envelope::Cause;

/// What happened, in one sentence, and what the sender can do. None: the status says more.
pub fn explain(cause: Cause) -> Option<(&'static str, &'static str)> {
    Some(match cause {
        Cause::MailboxUnknown => (
            "There is no mailbox with this address.",
            "Check the address for typing errors, correct it and send the mail again.",
        ),
        Cause::MailboxDisabled => (
            "The mailbox exists, but does not accept mail.",
            "Ask the recipient for another address.",
        ),
        Cause::MailboxFull => (
            "The mailbox is full.",
            "Tell the recipient in another way, and send the mail again later.",
        ),
        // Of these the status has more to say.
        Cause::DomainUnknown | Cause::Expired | Cause::Other => return None,
        Cause::SenderRefused => (
            "The recipient's mail system does not accept mail from your address.",
            "Check that your own address is right in your mail program, and forward this report to your postmaster if it is.",
        ),
        Cause::Unauthenticated => (
            "The recipient's mail system could not verify that the mail comes from where it says.",
            "Forward this report to your postmaster: SPF, DKIM, DMARC or the name of the sending host must be put right.",
        ),
        Cause::Spam => (
            "The recipient's mail system took the mail for spam.",
            "Write it in another way, with fewer links and pictures, and ask the recipient to allow your address.",
        ),
        Cause::Content => (
            "The recipient's mail system does not take mail with this content.",
            "Send it in another form, for example without attachments.",
        ),
        Cause::Reputation => (
            "The recipient's mail system does not take mail from our mail system, which it has on a list.",
            "Forward this report to your postmaster, who can ask for our removal from that list.",
        ),
        Cause::RateLimited => (
            "The recipient's mail system got too much mail in too short a time.",
            "Send the mail again later.",
        ),
        Cause::Greylisted => (
            "The recipient's mail system puts off mail from senders that it does not know yet.",
            "Send the mail again later.",
        ),
        Cause::Policy => (
            "The recipient's mail system refused it under its own rules.",
            "Read what it said above; it alone can change its rules, so ask the recipient.",
        ),
        Cause::TooLarge => (
            "The mail is too large for the recipient's mail system.",
            "Send a smaller mail, or put large files elsewhere and send a link.",
        ),
        Cause::LoginRequired => (
            "The next mail system wants a log-in that ours does not have.",
            "Forward this report to your postmaster: our mail system is set up wrongly.",
        ),
        Cause::RelayDenied => (
            "The mail system that was asked does not take mail for this domain.",
            "Check the part behind the @ for typing errors; if it is right, ask the recipient: that domain is set up wrongly.",
        ),
        Cause::Connection => (
            "The recipient's mail system could not be reached.",
            "Send the mail again later, or reach the recipient in another way.",
        ),
        Cause::Dns => (
            "The name service did not answer for this domain.",
            "Send the mail again later, or reach the recipient in another way.",
        ),
        Cause::Tls => (
            "No safe connection to the recipient's mail system came about.",
            "Forward this report to your postmaster, or reach the recipient in another way.",
        ),
        Cause::Protocol => (
            "Our mail system and the recipient's did not understand each other.",
            "Forward this report to your postmaster.",
        ),
        Cause::System => (
            "The recipient's mail system has trouble of its own.",
            "Send the mail again later, or reach the recipient in another way.",
        ),
        Cause::Loop => (
            "The mail went round in a circle between mail systems.",
            "Forward this report to your postmaster: the mail systems are set up wrongly.",
        ),
        Cause::Suppressed => (
            "It was not tried, because mail to this address has failed for good before.",
            "Check the address; if it is right, ask your postmaster to release it.",
        ),
        // A later cause, which the status tells of.
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_are_sentences_that_fit_into_a_report() {
        for (what, to_do) in Cause::ALL.iter().filter_map(|cause| explain(*cause)) {
            for sentence in [what, to_do] {
                assert!(sentence.is_ascii() && sentence.ends_with('.') && sentence.len() < 160);
            }
        }
    }
}
