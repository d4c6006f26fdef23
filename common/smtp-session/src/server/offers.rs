//! What is told of ourselves: the reply to EHLO, and HELP.

use postroad_envelope::Timestamp;
use postroad_smtp::{Extension, XClient, XForward};

use super::{Flavour, ServerSession};

/// What Exim's `lmtp` transport reads of a whole reply (`lmtp_read_response`: a buffer of 256 octets, full when fewer than 10 are left).
const LHLO_REPLY: usize = 246;

impl ServerSession {
    /// The lines of the reply to EHLO and LHLO.
    pub(super) fn extensions(&self) -> Vec<Extension> {
        let offers = &self.config.offers;
        let mut extensions = vec![
            Extension::Size(Some(self.size_limit())),
            Extension::Pipelining,
            Extension::EightBitMime,
            Extension::EnhancedStatusCodes,
        ];
        let auth = self.mechanisms();
        let mechanisms = auth.iter().map(ToString::to_string).collect();
        let limits = Extension::Limits(self.limits());
        let deliver_by = Extension::DeliverBy(offers.deliver_by.unwrap_or(0));
        let believed = |attribute: &&str| offers.xclient_login || *attribute != "LOGIN";
        let client = XClient::ATTRIBUTES.into_iter().filter(believed);
        let client = client.map(str::to_owned).collect();
        let attributes = XForward::ATTRIBUTES.map(str::to_owned).to_vec();
        extensions.extend(
            [
                (offers.smtputf8, Extension::SmtpUtf8),
                (offers.dsn, Extension::Dsn),
                (offers.chunking, Extension::Chunking),
                (self.takes_binary(), Extension::BinaryMime),
                (offers.starttls && !self.tls, Extension::StartTls),
                (offers.requiretls && self.tls, Extension::RequireTls),
                // RFC 4954 §4 and §9: mechanisms that reveal passwords are offered under TLS alone.
                (self.tls && !auth.is_empty(), Extension::Auth(mechanisms)),
                (offers.mt_priority.is_some(), Extension::MtPriority(None)),
                (offers.deliver_by.is_some(), deliver_by),
                (true, limits),
                (offers.xforward, Extension::XForward(attributes)),
                (self.takes_xclient(), Extension::XClient(client)),
            ]
            .into_iter()
            .filter_map(|(offered, extension)| offered.then_some(extension)),
        );
        // RFC 4865 §3: the longest time, and the moment that it reaches to.
        extensions.extend(offers.future_release.map(|longest| {
            let until = Timestamp::from_millis(self.now.plus(longest).as_millis() / 1000 * 1000);
            Extension::FutureRelease(longest.as_secs(), until.to_string())
        }));
        if self.config.flavour == Flavour::Lmtp && self.octets(&extensions) > LHLO_REPLY {
            // The one that a client loses nothing by: what is too much is refused one by one.
            extensions.retain(|extension| !matches!(extension, Extension::Limits(_)));
        }
        extensions
    }

    /// Of the reply with these lines.
    fn octets(&self, extensions: &[Extension]) -> usize {
        let line = |text: &str| "250-".len() + text.len() + "\r\n".len();
        let extensions = extensions.iter().map(|one| line(&one.to_string()));
        line(self.config.host_name.a_label()) + extensions.sum::<usize>()
    }

    /// RFC 9422: each as it is in force; what is not limited is not named.
    fn limits(&self) -> Vec<(String, Option<u64>)> {
        let mails = self.config.limits.mails;
        let mails = (mails < u32::MAX).then(|| ("MAILMAX".to_owned(), Some(u64::from(mails))));
        let recipients = u64::try_from(self.most_recipients()).ok();
        let recipients = ("RCPTMAX".to_owned(), recipients);
        mails.into_iter().chain([recipients]).collect()
    }

    pub(super) fn takes_binary(&self) -> bool {
        self.config.offers.chunking && self.config.offers.binarymime
    }

    /// RFC 5321 §4.5.3.1.8.
    pub(super) fn most_recipients(&self) -> usize {
        self.config.limits.recipients.max(100)
    }

    /// The commands that there are, as far as they are offered now.
    pub(super) fn help(&self) -> String {
        let offers = &self.config.offers;
        let hello = match self.config.flavour {
            Flavour::Lmtp => "LHLO",
            Flavour::Smtp | Flavour::Submission => "EHLO HELO",
        };
        let mut words = vec![hello, "MAIL RCPT DATA"];
        for (offered, word) in [
            (offers.chunking, "BDAT"),
            (offers.starttls && !self.tls, "STARTTLS"),
            (self.tls && !offers.auth.is_empty(), "AUTH"),
            (offers.xforward, "XFORWARD"),
            (self.takes_xclient(), "XCLIENT"),
        ] {
            if offered {
                words.push(word);
            }
        }
        words.push("RSET NOOP VRFY EXPN HELP QUIT");
        format!(
            "commands: {}\nsee RFC 5321; postmaster helps people",
            words.join(" ")
        )
    }
}
