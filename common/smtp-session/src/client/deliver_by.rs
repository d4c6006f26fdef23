//! A mail that has its time, at the next host (RFC 2852 §4.1.4).

use postroad_envelope::Notify;
use postroad_reply::{EXPIRED_5_4_7, EnhancedStatusCode, NOT_CAPABLE_5_3_3};
use postroad_smtp::By;

use super::ClientSession;

/// What a host is told of the time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Timing {
    /// BY of MAIL.
    pub said: Option<By>,
    /// The host cannot be told, and the time is not over: the sender is to hear of delays all the same.
    pub is_lost: bool,
}

impl ClientSession {
    /// What this host is told, or why it cannot have the mail.
    pub(super) fn timing(
        &self,
        asked: Option<By>,
    ) -> Result<Timing, (EnhancedStatusCode, &'static str)> {
        let Some(by) = asked else {
            return Ok(Timing::default());
        };
        let left = u64::try_from(by.seconds).unwrap_or(0);
        // §4: `R` with no time left is no argument, and nothing may be tried then (§4.1.3).
        if by.return_after && left == 0 {
            return Err((EXPIRED_5_4_7, "no time is left to deliver the mail by"));
        }
        let offered = self.capabilities.deliver_by();
        let is_in_time = offered.is_some_and(|least| !by.return_after || left >= least);
        if is_in_time {
            return Ok(Timing {
                said: asked,
                is_lost: false,
            });
        }
        // §1: what a store takes is delivered.
        if self.config.lmtp {
            return Ok(Timing::default());
        }
        match offered {
            // §4.1.4.1.
            None if by.return_after => Err((
                NOT_CAPABLE_5_3_3,
                "the host does not support DELIVERBY, which the sender insists on",
            )),
            Some(_) => Err((
                EXPIRED_5_4_7,
                "the host does not promise to deliver within the time that is left",
            )),
            // §4.1.4.2.
            None => Ok(Timing {
                said: None,
                is_lost: left > 0,
            }),
        }
    }
}

impl Timing {
    /// NOTIFY for a host that offers DSN: §4.1.4.2 has DELAY added, against RFC 3461 §5.2.1.
    pub fn notify(self, asked: Option<Notify>) -> Option<Notify> {
        match asked {
            asked if !self.is_lost => asked,
            None | Some(Notify::Unsaid) => Some(Notify::On {
                success: false,
                failure: true,
                delay: true,
            }),
            Some(Notify::Never) => Some(Notify::Never),
            Some(Notify::On {
                success, failure, ..
            }) => Some(Notify::On {
                success,
                failure,
                delay: true,
            }),
        }
    }
}
