//! The shop: everything one device knows, and the only way to change it. Sans-IO: the shell
//! feeds [`Input`]s, and carries out the [`Output`]s in order.
//!
//! A shell's loop: drain the queue into [`Shop::handle`], end the group with [`Input::Seal`],
//! write every [`Output::Begun`] and [`Output::Journal`] in one durable commit, then carry out
//! the rest in order. Nothing may be sent, shown or acknowledged before that commit.
//!
//! A shell in a hurry gives [`Input::Stage`] first, commits, gives out the [`Output::Acted`]
//! answers, and seals the group afterwards: signing and sending then keep no caller waiting.

mod act;
mod apply;
mod catalogue;
mod fork;
mod handoff;
mod holdings;
mod lazy;
mod promises;
mod queue_config;
mod receive;
mod send;
mod settings;
mod snapshot;
mod state;
mod wipe;

use ed25519_dalek::SigningKey;

pub use act::{ActError, Acted, Operation, Phone};
pub use fork::Split;
pub use handoff::HandoffError;
pub use queue_config::{OPERATION_TYPES, QUEUE_FIELDS, QueueConfig, QueueField, QueueKind, UPSTREAM_RELAY};
pub use settings::{
    PAYING_RELAY, PAYING_SHORTCODE, PAYMENT_PROVIDERS, PROMISE_AMOUNT_MAX, PROMISE_DAY_MAX, PROMISE_DEVICE_MAX,
    PROMISE_PHONE_MAX, PromiseLimits, REQUIRE_KNOWN_SKU, Settings,
};
pub use state::{Known, OpenError, PageSpan, Peer, Quarantined, Shop, Status, Stored};
pub use wipe::{HeldJournal, Holder, SignedVerdict, Verdict, VerdictError};

use crate::document::DocumentId;
use crate::entry::{Entry, Place};
use crate::ids::{DeviceId, JournalId, RecordId};
use crate::journal::JournalInfo;
use crate::record::{Certificate, Genesis, Kind};
pub use crate::sync::arrival::Arrival;
pub use crate::sync::packed::PackedRun;
pub use crate::sync::session::{LinkId, LinkKind};
use crate::time::Timestamp;

/// Who a device is.
#[derive(Clone)]
pub struct Identity {
    /// The business.
    pub genesis: Genesis,
    /// The owner's word that the device belongs to it.
    pub certificate: Certificate,
    /// The device's key.
    pub key: SigningKey,
    /// Randomness from the edge, fresh at every start; new journals take their nonce from it.
    pub entropy: [u8; 32],
    /// What this device records from now on it carries to the shop's own server itself.
    pub carries_own: bool,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("device", &self.certificate.device).finish_non_exhaustive()
    }
}

/// What happens to a shop.
#[derive(Debug)]
pub enum Input {
    /// The till's app records or edits something. The books have it with the next input
    /// ([`Input::Stage`] apart) or [`Shop::catch_up`], so that its commit needn't wait for that.
    Act(Box<Operation>),
    /// Gives out what is to be stored of the group so far, unsigned; [`Input::Seal`] must follow
    /// before the next group.
    Stage,
    /// Ends a group: signs our journal and gives out what is to be stored and sent.
    Seal,
    /// A link to a device came up.
    LinkUp(LinkId, DeviceId, LinkKind),
    /// A link went down.
    LinkDown(LinkId),
    /// A frame arrived.
    Received(LinkId, Vec<u8>),
    /// A frame arrived, and another thread has read it already.
    Arrived(LinkId, Box<Arrival>),
    /// A [`Output::SendRange`] was carried out as far as `through`.
    RangeSent {
        /// The link.
        link: LinkId,
        /// The journal.
        journal: JournalId,
        /// The last entry that was sent; less than `from` if there was none.
        through: u64,
    },
    /// The answer to [`Output::Load`]; fewer entries than it allows means there are no more.
    Loaded {
        /// The journal.
        journal: JournalId,
        /// The sequence number of the first entry.
        from: u64,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// The answer to [`Output::Fetch`].
    Fetched(Vec<(Place, Entry)>),
    /// Somebody wants to know who holds what: asks the peers for their signed words.
    AskHoldings,
    /// A time that [`Output::WakeAt`] asked for has come, or simply time went by.
    Tick,
}

/// An entry to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Where.
    pub place: Place,
    /// Its stored form.
    pub bytes: Vec<u8>,
}

/// What the shell has to do.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// The answer to an [`Input::Act`]; to be given only after the group's commit.
    Acted(Result<Acted, ActError>),
    /// A journal is new here: store how to verify it.
    Begun(JournalInfo),
    /// Store entries. `ours` tells whether they are this device's own.
    Journal {
        /// The entries, in order.
        entries: Vec<StoredEntry>,
        /// Longer runs, each in one piece.
        runs: Vec<PackedRun>,
        /// None of them came from a peer.
        ours: bool,
    },
    /// Store this entry again, now that it is signed. It needs no sync: after a crash the device
    /// signs it again, the same way.
    Signed(StoredEntry),
    /// Send a frame.
    Send(LinkId, Vec<u8>),
    /// Send stored entries as one run: from `from`, at most up to `through`, ending at a mark.
    /// Answer with [`Input::RangeSent`].
    SendRange {
        /// The link.
        link: LinkId,
        /// The journal.
        journal: JournalId,
        /// What the run must carry for a peer that doesn't know the journal.
        info: Option<JournalInfo>,
        /// The first entry.
        from: u64,
        /// The last entry.
        through: u64,
        /// Send it as an answer to a fork enquiry from this point instead of as new entries.
        branch: Option<crate::sync::message::BranchPoint>,
    },
    /// Load up to [`LOAD_ENTRIES_MAX`] stored entries from `from`. Answer with [`Input::Loaded`].
    Load {
        /// The journal.
        journal: JournalId,
        /// The first entry.
        from: u64,
    },
    /// Load single entries. Answer with [`Input::Fetched`].
    Fetch(Vec<Place>),
    /// A journal has forked: move its entries above the fork to the branch, then open the shop
    /// anew without a snapshot.
    Split(Split),
    /// The peer proved that it is enrolled: larger frames may be taken from it.
    Greeted(LinkId),
    /// The peer is not one of ours, or breaks the protocol: close the link and leave it for a
    /// while.
    Refuse(LinkId, String),
    /// Something changed that people may be looking at; a hint, the journal is the truth.
    Changed(Change),
    /// Give an [`Input::Tick`] at this time.
    WakeAt(Timestamp),
}

/// How many entries a [`Output::Load`] gives at most.
pub const LOAD_ENTRIES_MAX: usize = 1_024;

/// Something changed that people may be looking at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A fact was applied.
    Fact {
        /// Its kind.
        kind: Kind,
        /// Its record.
        record: RecordId,
        /// The device that recorded it.
        device: DeviceId,
    },
    /// Fields of a shared document changed.
    Document {
        /// The document.
        document: DocumentId,
        /// The keys, `record/field`.
        keys: Vec<String>,
    },
    /// A device came or went.
    Peer {
        /// The device.
        device: DeviceId,
        /// Whether a session with it is up.
        up: bool,
    },
    /// An entry was put into quarantine.
    Quarantined {
        /// Where it is.
        place: Place,
    },
    /// This device began a new epoch.
    Epoch {
        /// The epoch.
        epoch: u64,
    },
}

impl Shop {
    /// Takes one input. Time never decides whether an entry counts.
    pub fn handle(&mut self, input: Input, now: Timestamp) -> Vec<Output> {
        let mut out = if matches!(input, Input::Stage) { Vec::new() } else { self.catch_up() };
        match input {
            Input::Act(operation) => {
                let answer = self.act(*operation, now);
                out.push(Output::Acted(answer));
            }
            Input::Stage => self.stage(&mut out),
            Input::Seal => self.seal(now, &mut out),
            Input::LinkUp(link, device, kind) => self.link_up(link, device, kind, now, &mut out),
            Input::LinkDown(link) => self.link_down(link, &mut out),
            Input::Received(link, frame) => self.received(link, &frame, now, &mut out),
            Input::Arrived(link, arrival) => self.arrived(link, *arrival, now, &mut out),
            Input::RangeSent { link, journal, through } => self.range_sent(link, journal, through, &mut out),
            Input::Loaded { journal, from, entries } => self.loaded(journal, from, entries, now, &mut out),
            Input::Fetched(entries) => self.fetched(entries, &mut out),
            Input::AskHoldings => self.ask_holdings(&mut out),
            Input::Tick => self.tick(now, &mut out),
        }
        out
    }

    /// Lets the books have what was recorded last: to be called before the shop is asked anything.
    #[must_use]
    pub fn catch_up(&mut self) -> Vec<Output> {
        let mut out = Vec::new();
        self.fold_own(&mut out);
        out
    }
}
