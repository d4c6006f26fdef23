//! BY at MAIL (RFC 2852).

use postroad_reply::*;
use postroad_smtp::MailParams;

use super::ServerSession;

impl ServerSession {
    /// Whether the time can be kept, as far as that is known before anything was tried.
    pub(super) fn check_deliver_by(&self, params: &MailParams) -> Result<(), Reply> {
        let Some((by, least)) = params.deliver_by.zip(self.config.offers.deliver_by) else {
            return Ok(());
        };
        // §3: only what is to be returned has a least time.
        let short = u64::try_from(by.seconds).unwrap_or(0) < least;
        if by.return_after && short {
            return Err(Reply::new(
                UNKNOWN_PARAMETER_555,
                INVALID_PARAMETER_5_5_4,
                format!("mail to be returned by BY must have {least} seconds at least"),
            ));
        }
        // RFC 4865 §5.2.2: held for longer than it may take.
        let held_too_long = |hold: postroad_smtp::Hold| hold.until(self.now) > by.from(self.now).at;
        if params.hold.is_some_and(held_too_long) {
            return Err(Reply::new(
                PARAMETER_SYNTAX_501,
                INVALID_PARAMETER_5_5_4,
                "the mail would be held beyond the time that BY gives it",
            ));
        }
        Ok(())
    }
}
