//! Facts with their places, and the total order that decides between copies of one fact.

use minicbor::{Decode, Encode};

use super::BodyDigest;
use crate::entry::Place;
use crate::ids::{DeviceId, JournalId, RecordId};
use crate::record::Fact;
use crate::time::{Day, Hlc};

/// A fact where it was recorded.
#[derive(Debug, Clone, Copy)]
pub struct Placed<'a> {
    /// Its entry.
    pub place: Place,
    /// Its index in that entry.
    pub index: u32,
    /// Its record id, as [`Fact::record_id`] gives it.
    pub id: RecordId,
    /// When its entry was made.
    pub time: Hlc,
    /// The business day it belongs to: its page's, or the day on which it occurred.
    pub day: Day,
    /// The device whose journal holds it.
    pub device: DeviceId,
    /// Its entry is above a fork, so an intent in it must not be pushed.
    pub branch: bool,
    /// The fact.
    pub fact: &'a Fact,
    /// Its [`super::body_digest`], where it is at hand.
    pub digest: Option<BodyDigest>,
}

impl Placed<'_> {
    /// Where it stands in the order of facts.
    #[must_use]
    pub fn key(&self) -> Key {
        Key { time: self.time, journal: self.place.journal, seq: self.place.seq, index: self.index }
    }
}

/// A fact's standing in the order of facts: by time, then journal, sequence number and index.
/// Of several copies of a fact the smallest counts; of several decisions the largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Key {
    /// When its entry was made.
    #[n(0)]
    pub time: Hlc,
    /// Its journal.
    #[n(1)]
    pub journal: JournalId,
    /// Its entry's sequence number.
    #[n(2)]
    pub seq: u64,
    /// Its index in that entry.
    #[n(3)]
    pub index: u32,
}

impl Key {
    /// Before every fact.
    pub(super) const FIRST: Self = Self { time: Hlc(0), journal: JournalId([0; 16]), seq: 0, index: 0 };

    /// The entry's place.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { journal: self.journal, seq: self.seq }
    }
}

/// What the books need from their caller, because they keep no facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Followup {
    /// An earlier copy of a counted fact arrived. Load both and call
    /// [`super::Books::recount`]; until then the figures still hold the old one.
    Recount {
        /// Entry and index of the copy that is counted now.
        old: (Place, u32),
        /// Entry and index of the copy that must count instead.
        new: (Place, u32),
    },
}
