//! What receipts claim: each claim is kept, whoever made it. Which of them counts is decided by
//! whose word is heard about their intents.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use super::names::{Journals, Numbered};
use super::payment::ReceiptClaim;
use super::placed::{Key, Placed};
use crate::ids::{DeviceId, RecordId};
use crate::money::{Currency, Money};
use crate::record::{Evidence, Receipt};
use crate::time::{Hlc, Timestamp};

#[derive(Debug, Clone, Default, Encode, Decode)]
pub(super) struct Claims {
    #[n(0)]
    devices: Numbered<DeviceId>,
    /// By receipt, intent and author.
    #[n(1)]
    claims: BTreeMap<(RecordId, RecordId, u32), Claim>,
    /// By intent: its receipts.
    #[n(2)]
    by_intent: BTreeSet<(RecordId, RecordId)>,
}

#[derive(Debug, Clone, Encode, Decode)]
struct Claim {
    #[n(0)]
    number: Box<str>,
    #[n(1)]
    time: Hlc,
    #[n(2)]
    seq: u64,
    #[n(3)]
    amount_minor: i64,
    #[n(4)]
    paid_at: Timestamp,
    #[n(5)]
    journal: u32,
    #[n(6)]
    index: u32,
    #[n(7)]
    currency: Currency,
    #[n(8)]
    evidence: Evidence,
    #[n(9)]
    test: bool,
}

impl Claims {
    /// Keeps a claim, the author's smallest of each receipt and intent; tells whether that is new.
    pub(super) fn keep(&mut self, placed: &Placed<'_>, receipt: &Receipt, journals: &mut Journals) -> bool {
        let claim = Claim {
            number: receipt.number.as_str().into(),
            time: placed.time,
            seq: placed.place.seq,
            amount_minor: receipt.amount.minor,
            paid_at: receipt.paid_at,
            journal: journals.number(placed.place.journal, placed.device),
            index: placed.index,
            currency: receipt.amount.currency,
            evidence: receipt.evidence,
            test: receipt.test,
        };
        let key = claim.key(journals);
        let at = (placed.id, receipt.intent, self.devices.number(&placed.device));
        if self.claims.get(&at).is_some_and(|known| known.key(journals) <= key) {
            return false;
        }
        self.claims.insert(at, claim);
        self.by_intent.insert((receipt.intent, placed.id));
        true
    }

    /// An intent's receipts.
    pub(super) fn of(&self, intent: RecordId) -> impl Iterator<Item = RecordId> + '_ {
        let all = self.by_intent.range((intent, LOWEST)..).take_while(move |(other, _)| *other == intent);
        all.map(|(_, receipt)| *receipt)
    }

    /// The intent and those that claim the same receipts.
    pub(super) fn entangled(&self, intent: RecordId) -> BTreeSet<RecordId> {
        let mut intents = BTreeSet::from([intent]);
        for receipt in self.of(intent) {
            intents.extend(self.claimed_for(receipt));
        }
        intents
    }

    /// The intents that a receipt is claimed for.
    pub(super) fn claimed_for(&self, receipt: RecordId) -> Vec<RecordId> {
        let mut intents: Vec<RecordId> = self.all_of(receipt).map(|((_, intent, _), _)| *intent).collect();
        intents.dedup();
        intents
    }

    /// The smallest claim of a receipt among those whose author is heard about their intent.
    pub(super) fn smallest(
        &self,
        receipt: RecordId,
        journals: &Journals,
        is_heard: impl Fn(RecordId, DeviceId) -> bool,
    ) -> Option<(Key, RecordId)> {
        let claims = self.all_of(receipt).filter_map(|((_, intent, device), claim)| {
            let author = *self.devices.value(*device)?;
            is_heard(*intent, author).then_some((claim.key(journals)?, *intent))
        });
        claims.min()
    }

    /// What the claim with this key is over.
    pub(super) fn amount_of(
        &self,
        receipt: RecordId,
        intent: RecordId,
        key: Key,
        journals: &Journals,
    ) -> Option<Money> {
        let mut claims = self.claims.range((receipt, intent, 0)..=(receipt, intent, u32::MAX));
        let found = claims.find(|(_, claim)| claim.key(journals) == Some(key));
        found.map(|(_, claim)| Money::new(claim.amount_minor, claim.currency))
    }

    /// What is claimed of a receipt for one intent. `winner` is the claim that counts, if it is
    /// one of these.
    pub(super) fn described<'a>(
        &'a self,
        receipt: RecordId,
        intent: RecordId,
        winner: Option<Key>,
        revoked: bool,
        journals: &'a Journals,
    ) -> impl Iterator<Item = ReceiptClaim> + 'a {
        let claims = self.claims.range((receipt, intent, 0)..=(receipt, intent, u32::MAX));
        claims.filter_map(move |((_, _, device), claim)| {
            let accepted = winner == Some(claim.key(journals)?) && !revoked;
            claim.describe(receipt, *self.devices.value(*device)?, accepted, revoked, journals)
        })
    }

    fn all_of(&self, receipt: RecordId) -> impl Iterator<Item = (&(RecordId, RecordId, u32), &Claim)> {
        self.claims.range((receipt, LOWEST, 0)..).take_while(move |((other, _, _), _)| *other == receipt)
    }
}

impl Claim {
    fn key(&self, journals: &Journals) -> Option<Key> {
        Some(Key { time: self.time, journal: journals.id(self.journal)?, seq: self.seq, index: self.index })
    }

    fn describe(
        &self,
        record: RecordId,
        device: DeviceId,
        accepted: bool,
        revoked: bool,
        journals: &Journals,
    ) -> Option<ReceiptClaim> {
        Some(ReceiptClaim {
            record,
            number: self.number.to_string(),
            amount: Money::new(self.amount_minor, self.currency),
            paid_at: self.paid_at,
            evidence: self.evidence,
            test: self.test,
            device,
            place: self.key(journals)?.place(),
            index: self.index,
            time: self.time,
            accepted,
            revoked,
        })
    }
}

const LOWEST: RecordId = RecordId(uuid::Uuid::nil());
