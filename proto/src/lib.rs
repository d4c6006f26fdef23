//! The wire contract: what agents and queue say to each other over gRPC.
//!
//! The `.proto` files beside this folder are the contract; the code made from them is checked in under `generated/`
//! (a test proves that it is fresh). [`convert`] turns messages into the words of `postroad-envelope` and back:
//! outward always works, inward fails with [`ConvertError`] when a peer sent something that cannot be.
//! Fields are only ever added, so agents of one version understand those of the version before.
#![forbid(unsafe_code)]

pub mod convert;

pub use convert::ConvertError;

/// `postroad.queue`
pub mod queue {
    /// `postroad.queue.v1`
    #[allow(
        missing_docs,
        clippy::all,
        reason = "generated; the .proto files carry the comments"
    )]
    pub mod v1 {
        include!("generated/postroad.queue.v1.rs");
    }
}

/// `postroad.directory`
pub mod directory {
    /// `postroad.directory.v1`
    #[allow(
        missing_docs,
        clippy::all,
        reason = "generated; the .proto files carry the comments"
    )]
    pub mod v1 {
        include!("generated/postroad.directory.v1.rs");
    }
}

/// The descriptors of all services, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.binpb");
