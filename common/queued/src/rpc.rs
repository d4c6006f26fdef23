//! The gRPC services over the local queue. The adapters know the traits of `postroad-queue-client` and nothing else, so
//! whatever implements them can be served.

mod admin;
mod agents;
mod roles;
mod submit_many;

pub(crate) use admin::AdminRpc;
pub(crate) use agents::{Admission, AgentsRpc};
pub(crate) use roles::{Gate, may_submit};
