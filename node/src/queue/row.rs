//! What the queue keeps of one operation, and what follows from it: where it stands.

use crdt_model::books::Key;
use crdt_model::entry::Place;
use crdt_model::ids::{DeviceId, RecordId};
use crdt_model::record::{DeliveryOutcome, DeliveryState, ErrorClass, Source};
use crdt_model::time::Hlc;
use minicbor::{Decode, Encode};

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum QueueStatus {
    /// It waits.
    #[n(0)]
    Pending,
    /// It is being sent.
    #[n(1)]
    Syncing,
    /// It is where it should be.
    #[n(2)]
    Synced,
    /// A person has to decide.
    #[n(3)]
    Conflict,
    /// It is not tried again by itself.
    #[n(4)]
    Failed,
}

impl QueueStatus {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Syncing, Self::Synced, Self::Conflict, Self::Failed];

    /// In the API's words.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Syncing => "syncing",
            Self::Synced => "synced",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
        }
    }

    /// From the API's words.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.word() == word)
    }
}

/// The operation itself, as its entry has it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Recorded {
    /// Its entry.
    #[n(0)]
    pub place: Place,
    /// Its fact's index there.
    #[n(1)]
    pub index: u32,
    /// When it was recorded.
    #[n(2)]
    pub time: Hlc,
    /// On which device.
    #[n(3)]
    pub device: DeviceId,
    /// By whom.
    #[n(4)]
    pub user: Option<String>,
    /// `sale`, `expense`, `record`, `payment`, `stock_adjustment`, or the app's own word.
    #[n(5)]
    pub operation_type: String,
    /// The client's own name for it.
    #[n(6)]
    pub source: Option<Source>,
    /// Its own till carries it there.
    #[n(7)]
    pub carried_by_own: bool,
    /// The app's own word for how soon.
    #[n(8)]
    pub priority: Option<u8>,
    /// The record that it is about; operations about one record keep their order.
    #[n(9)]
    pub lane: RecordId,
}

/// A person's decision about a conflict with the server.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Decided {
    /// Which outcome it is about.
    #[n(0)]
    pub ordinal: u32,
    /// Where it stands among decisions: the highest counts.
    #[n(1)]
    pub key: Key,
    /// The side.
    #[n(2)]
    pub choice: String,
    /// Field by field, as a JSON object.
    #[n(3)]
    pub fields: Option<String>,
}

/// What the carrier alone knows: its tries since the last outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Tries {
    /// A call is under way.
    #[n(0)]
    pub calling: bool,
    /// Calls in all.
    #[n(1)]
    pub attempts: u32,
    /// Of these, how many use up `max_retries` since it last became pending.
    #[n(2)]
    pub used: u32,
    /// Not before, in milliseconds since 1970 UTC.
    #[n(3)]
    pub not_before_ms: u64,
    /// Why the last one did not do.
    #[n(4)]
    pub error: Option<TryError>,
    /// A call was cut off by a crash, or its answer was lost: the server may have it.
    #[n(5)]
    pub in_doubt: bool,
}

/// Why a call did not do.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TryError {
    /// Its class.
    #[n(0)]
    pub class: ErrorClass,
    /// In one word.
    #[n(1)]
    pub code: String,
    /// For people.
    #[n(2)]
    pub detail: String,
    /// The answer's status.
    #[n(3)]
    pub http_status: Option<u16>,
}

/// What the queue keeps of one operation. Its parts arrive in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct OpRow {
    /// The operation; `None` while only others speak of it.
    #[n(0)]
    pub recorded: Option<Recorded>,
    /// The outcome that counts.
    #[n(1)]
    pub outcome: Option<(u32, Key, DeliveryOutcome)>,
    /// The highest outcome after which somebody wants it tried again.
    #[n(2)]
    pub wished_after: u32,
    /// The decision that counts.
    #[n(3)]
    pub decided: Option<Decided>,
    /// What the carrier alone knows.
    #[n(4)]
    pub tries: Tries,
}

impl OpRow {
    /// Where it stands; `None` while the operation itself has not arrived.
    #[must_use]
    pub fn status(&self) -> Option<QueueStatus> {
        self.recorded.as_ref()?;
        if self.tries.calling {
            return Some(QueueStatus::Syncing);
        }
        let Some((ordinal, _, outcome)) = &self.outcome else { return Some(QueueStatus::Pending) };
        if self.decision_to_act_on().is_some() {
            return Some(QueueStatus::Pending);
        }
        Some(match outcome.state {
            DeliveryState::Synced => QueueStatus::Synced,
            DeliveryState::Failed if self.wished_after >= *ordinal => QueueStatus::Pending,
            DeliveryState::Failed => QueueStatus::Failed,
            DeliveryState::Conflict => QueueStatus::Conflict,
        })
    }

    /// A decision that no outcome has followed yet. A later decision that differs from the one
    /// that was acted on is acted on too, so that the server ends with what everyone sees decided.
    #[must_use]
    pub fn decision_to_act_on(&self) -> Option<&Decided> {
        let decided = self.decided.as_ref()?;
        let (ordinal, _, outcome) = self.outcome.as_ref()?;
        let waits = outcome.state == DeliveryState::Conflict && decided.ordinal == *ordinal;
        let changed = outcome.decided.is_some_and(|key| decided.key > key) && decided.ordinal < *ordinal;
        (waits || changed).then_some(decided)
    }

    /// The server's own id, once it has one.
    #[must_use]
    pub fn server_id(&self) -> Option<&str> {
        self.outcome.as_ref()?.2.server_id.as_deref()
    }

    /// The number of the next outcome.
    #[must_use]
    pub fn next_ordinal(&self) -> u32 {
        self.outcome.as_ref().map_or(0, |(ordinal, ..)| *ordinal).saturating_add(1)
    }
}
