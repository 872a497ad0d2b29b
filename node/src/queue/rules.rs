//! What may be recorded while no relay is connected, as the business configured it. Kept ready, so
//! that nobody who is allowed everything is asked anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use crdt_model::ids::RecordId;
use crdt_model::record::{Fact, Role};
use crdt_model::shop::{Operation, QueueConfig, Shop};

use super::operation::describe;

/// Why something may not be recorded now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfflineRefused {
    /// The business records nothing without its relay.
    #[error("this shop records nothing while its relay is away: connect this device, or enable offline_mode_enabled")]
    Disabled,
    /// The business does not record this type without its relay.
    #[error("{operation_type} may not be recorded while the relay is away: connect this device, or allow it offline")]
    NotAllowed {
        /// The type.
        operation_type: String,
    },
    /// Too much waits.
    #[error("{waiting} operations wait, and max_queue_size is {max}: connect this device; sales are always taken")]
    QueueFull {
        /// How many wait.
        waiting: u64,
        /// How many may.
        max: u64,
    },
}

/// The rules, ready to be asked.
#[derive(Debug, Default)]
pub struct Offline {
    /// Somebody may be refused for being offline.
    restricted: AtomicBool,
    /// Too much waits.
    full: AtomicBool,
    config: RwLock<Arc<QueueConfig>>,
}

impl Offline {
    /// Takes the business's present rules.
    pub fn learn(&self, config: QueueConfig) {
        let restricted = !config.offline_mode_enabled || !config.refused_offline.is_empty();
        self.restricted.store(restricted, Ordering::Relaxed);
        if let Ok(mut kept) = self.config.write() {
            *kept = Arc::new(config);
        }
    }

    /// Whether a sale has to be checked at all.
    #[must_use]
    pub fn restricts(&self) -> bool {
        self.restricted.load(Ordering::Relaxed) || self.full.load(Ordering::Relaxed)
    }

    /// Learns whether too much waits.
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// The rules, as last learnt.
    #[must_use]
    pub fn config(&self) -> Arc<QueueConfig> {
        self.config.read().map(|config| Arc::clone(&config)).unwrap_or_default()
    }
}

/// What an alert is raised for although the operation is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OverLimit {
    /// How many wait.
    pub(crate) waiting: u64,
    /// How many may.
    pub(crate) max: u64,
}

/// What the business lets nobody record now. What was recorded before is only answered again. An
/// urgent one is taken even when too much waits.
///
/// # Errors
/// [`OfflineRefused`].
pub(crate) fn check_operation(shop: &Shop, operation: &Operation) -> Result<Option<OverLimit>, OfflineRefused> {
    let Some(fact) = operation.facts.iter().find(|fact| fact.is_for_upstream()) else { return Ok(None) };
    let place = RecordId::from_place(shop.own_journal(), u64::MAX, 0);
    if fact.source().is_some() {
        let record = fact.record_id(shop.business(), shop.own_journal(), u64::MAX, 0);
        if record != place && shop.books().record(record).is_some() {
            return Ok(None);
        }
    }
    // Only a shop that has a relay can be offline.
    if !has_relay(shop) {
        return Ok(None);
    }
    let operation_type = describe(fact, place).map(|described| described.operation_type).unwrap_or_default();
    let urgent = matches!(fact, Fact::Sale(_));
    judge(&shop.queue_config(), &operation_type, urgent, relay_is_connected(shop), shop.status().pending)
}

/// Whether an operation may be recorded, as the business wants it. Pure.
///
/// # Errors
/// [`OfflineRefused`].
pub(crate) fn judge(
    config: &QueueConfig,
    operation_type: &str,
    urgent: bool,
    online: bool,
    waiting: u64,
) -> Result<Option<OverLimit>, OfflineRefused> {
    if !online {
        if !config.offline_mode_enabled {
            return Err(OfflineRefused::Disabled);
        }
        if !config.allows_offline(operation_type) {
            return Err(OfflineRefused::NotAllowed { operation_type: operation_type.to_owned() });
        }
    }
    if waiting < config.max_queue_size {
        return Ok(None);
    }
    if urgent {
        tracing::error!(waiting, max = config.max_queue_size, "the queue is full: a sale is taken all the same");
        return Ok(Some(OverLimit { waiting, max: config.max_queue_size }));
    }
    Err(OfflineRefused::QueueFull { waiting, max: config.max_queue_size })
}

/// Whether the business has a relay, which this device is not.
pub(crate) fn has_relay(shop: &Shop) -> bool {
    shop.certificate().role != Role::Relay && shop.members().any(|member| member.role == Role::Relay)
}

pub(crate) fn relay_is_connected(shop: &Shop) -> bool {
    shop.peers().iter().any(|peer| {
        let relay = peer.certificate.as_ref().is_some_and(|certificate| certificate.role == Role::Relay);
        relay && !peer.links.is_empty()
    })
}
