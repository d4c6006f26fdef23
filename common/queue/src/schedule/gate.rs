use std::sync::Arc;

use postroad_envelope::{RouteClass, Timestamp};

use super::Lease;

/// Asked before a job of a destination is leased. A destination that is refused has no turn until
/// [`Schedule::reopen`](super::Schedule::reopen), so whoever refuses says when.
pub trait Gate {
    /// Whether one may begin now.
    fn admits(&mut self, class: RouteClass, destination: &Arc<str>, now: Timestamp) -> bool;

    /// One that was admitted is leased.
    fn granted(&mut self, lease: &Lease, class: RouteClass, destination: &Arc<str>);

    /// Whether mail for both destinations goes to the same hosts.
    fn kinship(&mut self, one: &Arc<str>, other: &Arc<str>) -> Kinship {
        let _ = (one, other);
        Kinship::Unknown
    }

    /// One was leased along with another of its [`Kinship::Same`], and not asked for.
    fn went_along(&mut self, lease: &Lease, class: RouteClass, destination: &Arc<str>) {
        let _ = (lease, class, destination);
    }
}

/// What is known of the hosts behind two destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinship {
    /// The same ones: mail for both may go in one transaction, and takes one place.
    Same,
    /// Others.
    Other,
    /// Nothing, of one of them or of both.
    Unknown,
}

/// Everything may begin.
#[derive(Debug, Clone, Copy)]
pub struct Open;

impl Gate for Open {
    fn admits(&mut self, _: RouteClass, _: &Arc<str>, _: Timestamp) -> bool {
        true
    }

    fn granted(&mut self, _: &Lease, _: RouteClass, _: &Arc<str>) {}
}
