//! Rules of an agent that takes mail from other hosts.

use super::{handing_over, stage::Stage};
use crate::rules::rules;

rules![Stage;
    "inbound.no_account": "any mail of a client in `queued.relay_networks`; never with an account" => handing_over::role,
];
