//! Lists of intents by what is to be done with them, and their sums: kept up to date as each
//! one's state and ledger change.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use super::payment::{IntentState, PaymentSum};
use crate::ids::{DeviceId, RecordId};
use crate::money::{Currency, Money};
use crate::record::Ledger;
use crate::time::Hlc;

#[derive(Debug, Clone, Default, Encode, Decode)]
pub(super) struct OpenIntents {
    /// Open intents of each ledger, the oldest first.
    #[n(0)]
    by_ledger: BTreeMap<Ledger, BTreeSet<(Hlc, RecordId)>>,
    /// Open intents of each device that have no ledger yet.
    #[n(1)]
    unaddressed: BTreeMap<DeviceId, BTreeSet<(Hlc, RecordId)>>,
    #[n(2)]
    by_device: BTreeMap<DeviceId, u64>,
    #[n(3)]
    sums: BTreeMap<(IntentState, Currency), PaymentSum>,
}

/// What the lists need of an intent.
#[derive(Debug, Clone)]
pub(super) struct Listing {
    pub(super) id: RecordId,
    pub(super) time: Hlc,
    pub(super) state: IntentState,
    pub(super) amount: Money,
    pub(super) ledger: Option<Ledger>,
    pub(super) device: Option<DeviceId>,
}

impl OpenIntents {
    pub(super) fn of_ledger(&self, ledger: &Ledger) -> impl Iterator<Item = RecordId> + '_ {
        self.by_ledger.get(ledger).into_iter().flatten().map(|(_, id)| *id)
    }

    pub(super) fn unaddressed(&self, device: DeviceId) -> impl Iterator<Item = RecordId> + '_ {
        self.unaddressed.get(&device).into_iter().flatten().map(|(_, id)| *id)
    }

    pub(super) fn has(&self, device: DeviceId) -> bool {
        self.by_device.contains_key(&device)
    }

    pub(super) fn sums(&self) -> &BTreeMap<(IntentState, Currency), PaymentSum> {
        &self.sums
    }

    pub(super) fn enlist(&mut self, listing: &Listing) {
        let sum = self.sums.entry((listing.state, listing.amount.currency)).or_default();
        sum.intents += 1;
        sum.amount_minor += i128::from(listing.amount.minor);
        let (Some(device), IntentState::Open) = (listing.device, listing.state) else { return };
        *self.by_device.entry(device).or_default() += 1;
        let at = (listing.time, listing.id);
        match listing.ledger {
            Some(ledger) => self.by_ledger.entry(ledger).or_default().insert(at),
            None => self.unaddressed.entry(device).or_default().insert(at),
        };
    }

    pub(super) fn unlist(&mut self, listing: &Listing) {
        let key = (listing.state, listing.amount.currency);
        if let Some(sum) = self.sums.get_mut(&key) {
            sum.intents -= 1;
            sum.amount_minor -= i128::from(listing.amount.minor);
            if sum.intents == 0 {
                self.sums.remove(&key);
            }
        }
        let (Some(device), IntentState::Open) = (listing.device, listing.state) else { return };
        if let Some(open) = self.by_device.get_mut(&device) {
            *open -= 1;
            if *open == 0 {
                self.by_device.remove(&device);
            }
        }
        let at = (listing.time, listing.id);
        match listing.ledger {
            Some(ledger) => remove(&mut self.by_ledger, ledger, at),
            None => remove(&mut self.unaddressed, device, at),
        }
    }
}

fn remove<K: Ord, T: Ord>(sets: &mut BTreeMap<K, BTreeSet<T>>, key: K, item: T) {
    if let Some(set) = sets.get_mut(&key) {
        set.remove(&item);
        if set.is_empty() {
            sets.remove(&key);
        }
    }
}
