//! The sync session: what two devices say to each other once a link is up.

pub mod arrival;
pub mod codec;
pub mod compact;
mod dictionary;
pub mod holding;
pub mod message;
mod outline;
pub mod packed;
mod predictor;
pub mod session;
