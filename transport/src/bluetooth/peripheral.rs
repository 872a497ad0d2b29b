//! The peripheral's side as a part that can be exchanged: each platform has another, some none.

use std::fmt;

use futures::future::BoxFuture;

use super::{Carrier, Tag};

/// A device that others can connect to.
///
/// - It offers the service of docs/protocol.md, so that the centrals of every platform find it.
/// - `advertise` shows the service's UUID and the tag, in place of an earlier one.
/// - `arrival` gives one carrier for each central that has begun to talk, `None` once there will
///   be no more, and loses nothing if it is dropped before it is ready.
/// - It proves nothing: who is at the other end is found out above it.
pub trait Peripheral: Send {
    /// Shows a tag.
    fn advertise(&mut self, tag: Tag) -> BoxFuture<'_, Result<(), PeripheralError>>;
    /// The next central.
    fn arrival(&mut self) -> BoxFuture<'_, Option<Arrival>>;
}

/// A central that has begun to talk.
#[derive(Debug)]
pub struct Arrival {
    pub carrier: Carrier,
    pub medium: Medium,
    /// The central's address, for people and for telling centrals apart.
    pub remote: String,
}

/// What a carrier is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A characteristic that is written and notified.
    Gatt,
    /// A channel of its own, beside GATT.
    L2cap,
}

/// Why the peripheral's side does not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeripheralError {
    #[error("the Bluetooth service refused ({0}): check that it runs, and that this user may use it")]
    Refused(String),
    #[error("this platform has no peripheral side yet: other devices are connected to, but can't connect to this one")]
    Unsupported,
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gatt => "gatt",
            Self::L2cap => "l2cap",
        })
    }
}
