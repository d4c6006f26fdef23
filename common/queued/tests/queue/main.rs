//! The queue in one process: local object, sockets, restarts.

mod setup;

mod conformance;
