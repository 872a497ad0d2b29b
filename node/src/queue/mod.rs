//! The queue: every operation on its way to the shop's own server, as the journals tell it. A
//! projection behind a watermark; thrown away and rebuilt, it says the same. docs/queue.md explains.

pub mod alerts;
pub mod analytics;
pub mod attempts;
pub mod audit;
mod desk;
pub mod figures;
pub mod fold;
mod keys;
mod mappings;
mod operation;
mod projection;
mod row;
pub(crate) mod rules;
pub mod stretches;
mod sync;
pub(crate) mod watch;

pub(crate) use desk::RowChange;
pub use desk::{Desk, DeskError, Filter, Listing, Shown};
pub use operation::{Described, SALE_PLACE, describe};
pub use projection::{Counters, Mapping};
pub use row::{Decided, OpRow, QueueStatus, Recorded, Tries, TryError};
pub use rules::{Offline, OfflineRefused};
pub use sync::{Carrying, Command, Schedule, SyncSummary};
