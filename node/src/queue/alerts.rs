//! Alerts: what a person should look at soon. Each is an event for whoever listens, and a count that
//! a restart keeps.

use crdt_model::ids::RecordId;
use tokio::sync::broadcast;

use super::row::QueueStatus;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertKind {
    /// An operation is not tried again by itself.
    OperationFailed,
    /// The shop's own server has something else, and a person decides.
    OperationConflict,
    /// As many operations wait as may; sales are still taken.
    QueueFull,
    /// A sale was taken although the queue is full.
    SaleOverLimit,
}

/// Something that a person should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// What happened.
    pub kind: AlertKind,
    /// The operation that it is about.
    pub operation: Option<RecordId>,
    /// For people.
    pub detail: String,
}

/// How often each kind was raised, by [`AlertKind`].
pub type AlertCounts = [u64; 4];

impl AlertKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::OperationFailed, Self::OperationConflict, Self::QueueFull, Self::SaleOverLimit];

    /// In the API's words.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::OperationFailed => "operation_failed",
            Self::OperationConflict => "operation_conflict",
            Self::QueueFull => "queue_full",
            Self::SaleOverLimit => "sale_over_limit",
        }
    }

    /// How often it was raised.
    #[must_use]
    pub fn of(self, counts: &AlertCounts) -> u64 {
        counts.get(self as usize).copied().unwrap_or_default()
    }

    /// Counts one more.
    pub fn count(self, counts: &mut AlertCounts) {
        if let Some(count) = counts.get_mut(self as usize) {
            *count += 1;
        }
    }
}

impl Alert {
    /// What an operation's new status calls for, if it was in another before.
    pub(super) fn of_status(id: RecordId, from: Option<QueueStatus>, to: Option<QueueStatus>) -> Option<Self> {
        if from == to {
            return None;
        }
        let (kind, detail) = match to? {
            QueueStatus::Failed => {
                (AlertKind::OperationFailed, "an operation failed: see its last_error, and retry it")
            }
            QueueStatus::Conflict => {
                (AlertKind::OperationConflict, "the shop's server has something else: decide at /api/conflicts")
            }
            QueueStatus::Pending | QueueStatus::Syncing | QueueStatus::Synced => return None,
        };
        Some(Self { kind, operation: Some(id), detail: detail.to_owned() })
    }
}

/// Where alerts are told. Whoever is too slow misses some, and is told how many.
#[derive(Debug)]
pub(super) struct Bell {
    listeners: broadcast::Sender<Alert>,
}

impl Default for Bell {
    fn default() -> Self {
        Self { listeners: broadcast::Sender::new(ALERTS_KEPT) }
    }
}

impl Bell {
    pub(super) fn ring(&self, alert: Alert) {
        if self.listeners.send(alert).is_err() {
            tracing::trace!("nobody listens for alerts");
        }
    }

    pub(super) fn listen(&self) -> broadcast::Receiver<Alert> {
        self.listeners.subscribe()
    }
}

const ALERTS_KEPT: usize = 256;
