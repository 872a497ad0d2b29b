//! Which ledger has an intent: the one that it names, or that its device named later, and from
//! there on by an owner's word and the release that answers it. A pure function of the facts.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use super::payment::Moving;
use super::payment_notes::{by, put};
use super::placed::{Key, Placed};
use super::tally::Sign;
use crate::ids::{DeviceId, RecordId};
use crate::record::{IntentAddressed, IntentReleased, Ledger, LedgerMoved};

/// The most ledgers that an intent goes through; more would be a quarrel.
const LEDGERS_MAX: usize = 16;

#[derive(Debug, Clone, Default, Encode, Decode)]
pub(super) struct Ledgers {
    #[n(0)]
    addressed: BTreeMap<(RecordId, Key), (DeviceId, Ledger)>,
    /// What owners said; only what one of them signed gets here.
    #[n(1)]
    moves: BTreeMap<RecordId, (Key, LedgerMoved)>,
    #[n(2)]
    released: BTreeMap<(RecordId, Key), (DeviceId, IntentReleased)>,
    /// By an owner's word: the intents released for it.
    #[n(3)]
    by_move: BTreeSet<(RecordId, RecordId)>,
}

/// The ledgers of an intent, the first one first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Way {
    first: Option<Ledger>,
    later: Vec<Ledger>,
    /// Attempts that were made before it came to the last one.
    pub(super) attempts: u32,
    /// Those to whom an owner gave what a lost ledger had.
    heirs: Vec<DeviceId>,
    pub(super) moving: Option<Moving>,
}

impl Way {
    /// Who may ask for it.
    pub(super) fn last(&self) -> Option<Ledger> {
        self.later.last().copied().or(self.first)
    }

    /// Whether a relay's word about it counts.
    pub(super) fn hears(&self, device: DeviceId) -> bool {
        self.first.is_some_and(|ledger| ledger.relay == device)
            || self.later.iter().any(|ledger| ledger.relay == device)
            || self.heirs.contains(&device)
    }

    pub(super) fn voices(&self) -> Vec<DeviceId> {
        let mut voices: Vec<DeviceId> = self.first.iter().chain(&self.later).map(|ledger| ledger.relay).collect();
        voices.extend(&self.heirs);
        voices.sort_unstable();
        voices.dedup();
        voices
    }

    pub(super) fn has_been_at(&self, ledger: Ledger) -> bool {
        self.first == Some(ledger) || self.later.contains(&ledger)
    }
}

impl Ledgers {
    pub(super) fn address(&mut self, placed: &Placed<'_>, addressed: &IntentAddressed, sign: Sign) {
        put(&mut self.addressed, (addressed.intent, placed.key()), (placed.device, addressed.ledger), sign);
    }

    /// The first ledger that the intent's own device named later.
    pub(super) fn addressed(&self, intent: RecordId, author: Option<DeviceId>) -> Option<Ledger> {
        by(&self.addressed, intent).find(|(_, (device, _))| Some(*device) == author).map(|(_, (_, ledger))| *ledger)
    }

    /// Counts an owner's word, or takes it back.
    pub(super) fn moved(&mut self, placed: &Placed<'_>, moved: &LedgerMoved, sign: Sign) {
        put(&mut self.moves, placed.id, (placed.key(), moved.clone()), sign);
    }

    /// The intents that were released for an owner's word.
    pub(super) fn released_for(&self, moved: RecordId) -> Vec<RecordId> {
        let all = self.by_move.range((moved, RecordId(uuid::Uuid::nil()))..);
        all.take_while(|(of, _)| *of == moved).map(|(_, intent)| *intent).collect()
    }

    pub(super) fn release(&mut self, placed: &Placed<'_>, released: &IntentReleased, sign: Sign) {
        put(&mut self.released, (released.intent, placed.key()), (placed.device, released.clone()), sign);
        let remains = by(&self.released, released.intent).any(|(_, (_, other))| other.moved == released.moved);
        match remains {
            true => self.by_move.insert((released.moved, released.intent)),
            false => self.by_move.remove(&(released.moved, released.intent)),
        };
    }

    /// Every word of an owner, in the order of their ids.
    pub(super) fn moves(&self) -> impl Iterator<Item = (RecordId, Key, &LedgerMoved)> {
        self.moves.iter().map(|(id, (key, moved))| (*id, *key, moved))
    }

    /// The way of an intent that began at `first`.
    pub(super) fn way(&self, intent: RecordId, first: Option<Ledger>) -> Way {
        let mut way = Way { first, ..Way::default() };
        if self.moves.is_empty() {
            return way;
        }
        while let Some((to, attempts)) = self.next(intent, &way) {
            way.later.push(to);
            way.attempts = way.attempts.max(attempts);
            if way.later.len() >= LEDGERS_MAX {
                break;
            }
        }
        let Some(last) = way.last() else { return way };
        let waiting = self.moves().filter(|(_, _, moved)| moved.covers(last, intent) && !way.has_been_at(moved.to));
        let waiting: Vec<_> = waiting.collect();
        let first_said = waiting.iter().min_by_key(|(_, key, _)| *key);
        way.moving = first_said.map(|(id, key, moved)| Moving {
            moved: *id,
            to: moved.to,
            old_is_gone: moved.old_is_gone,
            time: key.time,
        });
        let heirs = waiting.iter().filter(|(_, _, moved)| moved.old_is_gone).map(|(_, _, moved)| moved.to.relay);
        way.heirs = heirs.collect();
        way
    }

    /// The first release from the last ledger that is what it claims to be.
    fn next(&self, intent: RecordId, way: &Way) -> Option<(Ledger, u32)> {
        let last = way.last()?;
        by(&self.released, intent).find_map(|(_, (author, released))| {
            let (_, moved) = self.moves.get(&released.moved)?;
            let by_old = !released.reconciled && *author == moved.from.relay;
            let trusted = moved.old_is_gone || moved.to.relay == moved.from.relay;
            let by_new = released.reconciled && *author == moved.to.relay && trusted;
            let good = moved.covers(last, intent) && !way.has_been_at(moved.to) && (by_old || by_new);
            good.then_some((moved.to, released.attempts))
        })
    }
}
