//! Mail to the world: where a job goes, and (to come) the conversation that takes it there.
//!
//! [`next_hop`] turns a route and what the DNS says into an ordered list of addresses to try, or into a
//! [`next_hop::Verdict`]. It is pure but for [`resolve::next_hop`], which asks the resolver.

pub mod next_hop;
pub mod resolve;
