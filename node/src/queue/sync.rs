//! Asking the carrier to send now, and what came of it; one at a time, and whoever comes meanwhile
//! waits for the same.

use std::time::Duration;

use crdt_model::ids::RecordId;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

/// What came of sending.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SyncSummary {
    /// Operations that are now where they should be.
    pub success: u64,
    /// Operations that are not.
    pub failed: u64,
    /// Operations that a person has to decide about.
    pub conflict: u64,
    /// All that were to be sent.
    pub total: u64,
    /// How long it took.
    pub duration: Duration,
}

/// What the carrier is asked.
#[derive(Debug)]
pub enum Command {
    /// Send everything, or one operation, without waiting for what is not due.
    Sync {
        /// The one operation.
        only: Option<RecordId>,
        /// Where to say what came of it.
        reply: oneshot::Sender<SyncSummary>,
    },
    /// Something has changed that the carrier may want to act on.
    Look,
    /// The network is back, as far as somebody noticed: the server may be reached again.
    NetworkIsBack,
    /// What it waits for.
    Explain(oneshot::Sender<Schedule>),
}

/// What the carrier waits for, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Schedule {
    /// `sending`, `idle`, `backing_off`, `server_away`, `not_let_in`, `rate_limited`, `not_carrier`,
    /// `off_peak`, `no_wifi`, `data_budget`, `paused`; without a carrier here `relay` (there is no
    /// link to one) or `carrier` (the relay sends it on).
    pub waits_for: &'static str,
    /// Until when, in milliseconds since 1970 UTC.
    pub until_ms: Option<u64>,
    /// The same for people.
    pub detail: String,
    /// Calls under way.
    pub calling: u64,
    /// Operations that wait for another one of the same record.
    pub held: u64,
}

impl Schedule {
    /// Something simple to say.
    pub(super) fn plain(waits_for: &'static str, detail: &str) -> Self {
        Self { waits_for, detail: detail.to_owned(), ..Self::default() }
    }
}

/// The way to the carrier of this node.
#[derive(Debug, Clone)]
pub struct Carrying {
    commands: mpsc::Sender<Command>,
}

impl Carrying {
    /// A way, and the end of it that the carrier listens on.
    #[must_use]
    pub fn open() -> (Self, mpsc::Receiver<Command>) {
        let (commands, listen) = mpsc::channel(COMMANDS_MAX);
        (Self { commands }, listen)
    }

    /// Sends now, and waits for what comes of it; `None` if the carrier has stopped.
    pub async fn sync(&self, only: Option<RecordId>) -> Option<SyncSummary> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Sync { only, reply }).await.ok()?;
        answer.await.ok()
    }

    /// Lets the carrier look at what has changed, unless it is busy and will anyway.
    pub fn look(&self) {
        if self.commands.try_send(Command::Look).is_err() {
            tracing::trace!("the carrier is busy");
        }
    }

    /// Lets the carrier try what only the network kept back.
    pub fn network_is_back(&self) {
        if self.commands.try_send(Command::NetworkIsBack).is_err() {
            tracing::trace!("the carrier is busy");
        }
    }

    /// What the carrier waits for; `None` if it has stopped.
    pub async fn explain(&self) -> Option<Schedule> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Explain(reply)).await.ok()?;
        answer.await.ok()
    }
}

const COMMANDS_MAX: usize = 64;
