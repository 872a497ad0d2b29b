//! One session: what the other side holds, what was sent to it, and what it asked for.

use std::collections::{BTreeMap, BTreeSet};

use crate::entry::Place;
use crate::frontier::FrontierRow;
use crate::ids::{DeviceId, JournalId};
use crate::time::Timestamp;

/// A link, numbered by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What carries a link; policies look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// Local Wi-Fi or Ethernet.
    Lan,
    /// Bluetooth Low Energy.
    Bluetooth,
    /// Frames that the embedding app carries.
    Host,
    /// Within one process.
    Memory,
}

/// The state of one session.
#[derive(Debug, Clone)]
pub struct Session {
    /// The key that the link proved.
    pub device: DeviceId,
    /// What carries it.
    pub kind: LinkKind,
    /// When the link came up.
    pub since: Timestamp,
    /// The other side proved that it is enrolled.
    pub greeted: bool,
    /// Its frontier arrived, so we know what it lacks.
    pub informed: bool,
    /// We sent our whole frontier.
    pub frontier_sent: bool,
    /// How far it holds each journal, or will once what we sent arrives.
    pub sent: BTreeMap<JournalId, u64>,
    /// Journals that another link brings it.
    pub skip: BTreeSet<JournalId>,
    /// Journals that we asked it not to send.
    pub spared: BTreeSet<JournalId>,
    /// The journal whose stored entries are being sent.
    pub sending: Option<JournalId>,
    /// What it was told of: journals whose info it knows.
    pub told: BTreeSet<JournalId>,
    /// Entries received from it since the link came up.
    pub received: u64,
    /// When entries from elsewhere are carried on to it.
    pub forward_at: Option<Timestamp>,
    /// Forks that were asked about on this link, each once.
    pub forks_asked: BTreeSet<JournalId>,
    /// When it last asked for our signed word.
    pub asked: Option<Timestamp>,
}

impl Session {
    /// A session whose link has just come up.
    #[must_use]
    pub fn new(device: DeviceId, kind: LinkKind, since: Timestamp) -> Self {
        Self {
            device,
            kind,
            since,
            greeted: false,
            informed: false,
            frontier_sent: false,
            sent: BTreeMap::new(),
            skip: BTreeSet::new(),
            spared: BTreeSet::new(),
            sending: None,
            told: BTreeSet::new(),
            received: 0,
            forward_at: None,
            forks_asked: BTreeSet::new(),
            asked: None,
        }
    }

    /// The other side holds `place` and everything before it.
    pub fn holds(&mut self, place: Place) {
        let sent = self.sent.entry(place.journal).or_insert(0);
        *sent = (*sent).max(place.seq);
        self.told.insert(place.journal);
    }

    /// Takes the other side's whole frontier.
    pub fn inform(&mut self, rows: &[FrontierRow], skip: impl IntoIterator<Item = JournalId>) {
        self.informed = true;
        self.sent = rows.iter().map(|row| (row.journal, row.high)).collect();
        self.told.extend(rows.iter().map(|row| row.journal));
        self.skip = skip.into_iter().collect();
    }

    /// How far it holds a journal, for all we know; entries before its own first one count.
    #[must_use]
    pub fn sent(&self, journal: JournalId, before_first: u64) -> u64 {
        self.sent.get(&journal).copied().unwrap_or(0).max(before_first)
    }

    /// Whether entries of `journal` may be sent now.
    #[must_use]
    pub fn takes(&self, journal: JournalId) -> bool {
        self.greeted && self.informed && !self.skip.contains(&journal)
    }
}
