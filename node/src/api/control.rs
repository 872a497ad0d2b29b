//! What only the running node can do for its API.

use std::fmt::Debug;

use crdt_model::ids::{BusinessId, DeviceId, RecordId};
use crdt_model::record::{HandoffDecided, LedgerMoved, Role};
use crdt_model::shop::LinkId;
use futures::future::BoxFuture;

use crate::operations::MoveWords;

pub use crate::links::Moved;

/// What only the running node can do for its API.
///
/// - No call blocks; what takes time is in the future.
/// - Nothing secret is in an error's text.
pub trait NodeControl: Debug + Send + Sync {
    /// Where the node's links listen, for other devices to dial.
    fn addresses(&self) -> Vec<String>;

    /// Makes an invitation for one device: the text that it redeems.
    fn invite(&self, role: Role) -> BoxFuture<'_, Result<String, ControlError>>;

    /// Whether the owner's key is on this device.
    fn has_owner_key(&self) -> bool;

    /// Decides a handoff with the owner's key.
    ///
    /// # Errors
    /// [`ControlError::NotAnOwner`].
    fn decide_handoff(
        &self,
        handoff: RecordId,
        to: DeviceId,
        note: Option<String>,
    ) -> Result<HandoffDecided, ControlError>;

    /// Signs with the owner's key that payments go to another ledger.
    ///
    /// # Errors
    /// [`ControlError::NotAnOwner`].
    fn sign_move(&self, business: BusinessId, words: MoveWords) -> Result<LedgerMoved, ControlError>;

    /// What a link that is up has moved.
    fn moved(&self, link: LinkId) -> Option<Moved>;

    /// What keeps the node from serving, for a person to read; `None` if all is well.
    fn trouble(&self) -> Option<String>;
}

/// Why the node can't do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Only the device with the owner's key can do this.
    #[error("{0}")]
    NotAnOwner(String),
    /// It can't be done at the moment.
    #[error("{0}")]
    Unavailable(String),
}
