//! The sync session: what two devices say to each other once a link is up.

pub mod codec;
pub mod message;
pub mod session;
