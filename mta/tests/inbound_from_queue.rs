//! Port 25 where the queue tells of accounts.

#[path = "agent/fake_queue.rs"]
mod fake_queue;
#[path = "agent/inbound.rs"]
mod inbound;
#[allow(dead_code, reason = "outbound has its tests in the other suite alone")]
#[path = "agent/setup.rs"]
mod setup;
#[path = "../../common/accounts/tests/support/source.rs"]
mod source;
