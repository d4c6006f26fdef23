//! Rules of an agent that takes mail from other hosts.

use super::{handing_over, stage::Stage};
use crate::rules::rules;

rules![Stage;
    "inbound.no_account": "a report of its own, with the null path, one recipient and no client in its origin; never with an account" => handing_over::role,
];
