//! The queue: every operation on its way to the shop's own server, as the journals tell it. A
//! projection behind a watermark; thrown away and rebuilt, it says the same. docs/queue.md explains.

pub mod alerts;
pub mod analytics;
pub mod attempts;
pub mod audit;
mod by_relay;
mod conflict;
pub(crate) mod corrections;
mod desk;
pub mod figures;
pub mod fold;
mod handle;
mod keys;
mod mappings;
mod operation;
mod projection;
mod relay_sync;
mod row;
pub(crate) mod rules;
mod settings;
pub mod stretches;
mod sync;
#[cfg(test)]
mod tests;
pub(crate) mod watch;

pub use conflict::{Choice, ChoiceRefused, Decision, Opposed};
pub(crate) use desk::RowChange;
pub use desk::{Desk, DeskError, Filter, Listing, Shown};
pub use handle::{Destination, History, HistoryResult, Queue, QueueError, QueueState};
pub use operation::{Described, SALE_PLACE, describe, kind_word};
pub use projection::{Counters, Mapping};
pub use row::{Decided, OpRow, QueueStatus, Recorded, Tries, TryError};
pub use rules::{Offline, OfflineRefused};
pub use settings::{Changes, ConfigRefused, FieldRefused, Wrong, edits};
pub use sync::{Carrying, Command, Schedule, SyncSummary};
