//! What a delivery came to, in the words of the queue: the one place where errors become outcomes.

use postroad_envelope::{Outcome, Recipient, StatusReport};
use postroad_maildir::MaildirError;
use postroad_reply::*;

use crate::filing::FilingError;

/// Filed. The text names the folder and no path of this host: senders who asked for success reports read it.
pub fn delivered(recipient: &Recipient) -> Outcome {
    let folder = recipient.target_folder.as_deref().unwrap_or("INBOX");
    let text = format!("filed in {folder} of {}", recipient.address);
    Outcome::Delivered(StatusReport::local(SUCCESS_2_0_0, text))
}

/// Not filed. The cause goes to the log, the sender gets a general text.
pub fn failed(error: &FilingError) -> Outcome {
    let delayed = |status, text: &str| Outcome::Delayed(StatusReport::local(status, text));
    match error {
        FilingError::Header(too_long) => {
            Outcome::Failed(StatusReport::local(BAD_CONTENT_5_6_0, too_long.to_string()))
        }
        FilingError::Store(error @ MaildirError::InvalidTarget { .. }) => Outcome::Failed(
            StatusReport::local(BAD_ADDRESS_SYNTAX_5_1_3, error.to_string()),
        ),
        FilingError::Store(error @ MaildirError::NoSpace { .. }) => {
            tracing::error!(event = "disk_full", %error);
            delayed(SYSTEM_FULL_4_3_1, "no room to file the mail")
        }
        error => {
            tracing::error!(event = "fault", %error);
            delayed(SYSTEM_4_3_0, "the mail store cannot be written to")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_wrong_owner_are_our_matter_and_pass() {
        let path = std::path::PathBuf::from("/srv/mail/secret");
        for (error, status) in [
            (
                MaildirError::NoSpace { path: path.clone() },
                SYSTEM_FULL_4_3_1,
            ),
            (
                MaildirError::Permission { path: path.clone() },
                SYSTEM_4_3_0,
            ),
        ] {
            let Outcome::Delayed(report) = failed(&error.into()) else {
                panic!("not delayed")
            };
            assert_eq!(report.status, status);
            assert!(!report.text.contains("secret"), "senders see no paths");
        }
    }

    #[test]
    fn what_can_never_be_filed_fails() {
        let reason = "the local part is too long for a folder name".to_owned();
        let outcome = failed(&MaildirError::InvalidTarget { reason }.into());
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    }
}
