//! Rules of an agent that takes mail from other hosts.

use super::{handing_over, stage::Stage};
use crate::rules::rules;

rules![Stage;
    "inbound.no_account": "or verified for a name in `queued.relay_certificates`; never with an account" => handing_over::role,
];
