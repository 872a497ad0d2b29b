//! What the provider really charged, against the books.

use std::collections::BTreeMap;

use crdt_model::books::IntentState;
use crdt_model::ids::RecordId;
use crdt_model::payment::{ATTEMPTS_MAX, account_reference};
use crdt_model::shop::Shop;

use super::Outcome;
use crate::payments::simulator::LedgerLine;

/// What the books say.
#[derive(Debug, Clone, Default)]
pub(super) struct Books {
    states: BTreeMap<RecordId, IntentState>,
    /// By receipt number: which intent it pays, and how much.
    receipts: Vec<(String, RecordId, i64)>,
    suspense: BTreeMap<String, i64>,
    /// Which intent each number was shown for.
    claims: BTreeMap<String, RecordId>,
}

impl Books {
    pub(super) fn of(shop: &Shop, intents: &[RecordId]) -> Self {
        let mut books = Self::default();
        for intent in intents {
            let Some(payment) = shop.books().payment(*intent) else { continue };
            books.states.insert(*intent, payment.state);
            let accepted = payment.receipts.into_iter().filter(|receipt| receipt.accepted);
            books.receipts.extend(accepted.map(|receipt| (receipt.number, *intent, receipt.amount.minor)));
        }
        books.claims = shop.books().claims().map(|(intent, code)| (code, intent)).collect();
        books.suspense = shop.books().suspense().map(|entry| (entry.number, entry.amount.minor)).collect();
        books
    }

    pub(super) fn are_settled(&self) -> bool {
        self.states.values().all(|state| *state != IntentState::Open)
    }

    /// Whether every charge is in the books.
    pub(super) fn hold(&self, charges: &[LedgerLine]) -> bool {
        charges.iter().all(|charge| self.has(charge))
    }

    fn has(&self, charge: &LedgerLine) -> bool {
        let receipt = self
            .receipts
            .iter()
            .any(|(number, _, amount)| *number == charge.receipt_number && *amount == charge.amount_minor);
        receipt || self.suspense.get(&charge.receipt_number) == Some(&charge.amount_minor)
    }

    /// The intents about which something is wrong, each with the charge in question.
    pub(super) fn faults(&self, charges: &[LedgerLine]) -> Vec<(Option<RecordId>, String)> {
        let accounts: BTreeMap<String, RecordId> = self.states.keys().flat_map(|intent| names(*intent)).collect();
        let mut faults = Vec::new();
        for charge in charges.iter().filter(|charge| !self.has(charge)) {
            let shown = self.claims.get(&charge.receipt_number).copied();
            let intent = accounts.get(&charge.account_reference).copied().or(shown);
            faults.push((intent, format!("lost {charge:?}")));
        }
        for (intent, state) in &self.states {
            let pushed: Vec<_> =
                charges.iter().filter(|charge| accounts.get(&charge.account_reference) == Some(intent)).collect();
            if pushed.len() > 1 {
                faults.push((Some(*intent), format!("charged {} times: {pushed:?}", pushed.len())));
            }
            if *state == IntentState::Open {
                faults.push((Some(*intent), "unsettled".to_owned()));
            }
        }
        faults
    }

    /// Compares them with the truth.
    pub(super) fn judge(&self, charges: &[LedgerLine]) -> Outcome {
        let mut outcome = Outcome { intents: self.states.len() as u64, ..Outcome::default() };
        for state in self.states.values() {
            match state {
                IntentState::Open => outcome.unsettled += 1,
                IntentState::Paid => outcome.paid += 1,
                IntentState::Declined => outcome.declined += 1,
                IntentState::Void => outcome.void += 1,
                IntentState::Review => outcome.in_review += 1,
            }
        }
        let mut pushed: BTreeMap<RecordId, u64> = BTreeMap::new();
        let accounts: BTreeMap<String, RecordId> = self.states.keys().flat_map(|intent| names(*intent)).collect();
        for charge in charges {
            if let Some(intent) = accounts.get(&charge.account_reference).filter(|_| !charge.reversed) {
                *pushed.entry(*intent).or_default() += 1;
            }
            if !self.has(charge) {
                outcome.lost_minor += charge.amount_minor;
            }
        }
        outcome.charged_twice = pushed.values().filter(|count| **count > 1).count() as u64;
        let truth: BTreeMap<&str, &LedgerLine> =
            charges.iter().map(|charge| (charge.receipt_number.as_str(), charge)).collect();
        for (number, intent, amount) in &self.receipts {
            let proven = truth.get(number.as_str()).is_some_and(|charge| {
                let named = accounts.get(&charge.account_reference);
                charge.amount_minor == *amount && named.is_none_or(|named| named == intent)
            });
            outcome.unproven_receipts += u64::from(!proven);
        }
        let mut numbers: Vec<&String> = self.receipts.iter().map(|(number, ..)| number).collect();
        numbers.sort();
        let repeated = numbers.windows(2).filter(|pair| pair.first() == pair.last()).count();
        outcome.unproven_receipts += repeated as u64;
        outcome.in_suspense = self.suspense.len() as u64;
        outcome.charges = charges.len() as u64;
        outcome
    }
}

fn names(intent: RecordId) -> impl Iterator<Item = (String, RecordId)> {
    (1..).take(ATTEMPTS_MAX).map(move |number| (account_reference(intent.0, number).as_str().to_owned(), intent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charge(account: &str, receipt: &str, amount_minor: i64) -> LedgerLine {
        LedgerLine {
            account_reference: account.to_owned(),
            phone: String::new(),
            amount_minor,
            receipt_number: receipt.to_owned(),
            checkout_request_id: String::new(),
            at_ms: 0,
            listed_at_ms: 0,
            reversed: false,
            denied: false,
        }
    }

    #[test]
    fn each_kind_of_wrong_is_seen() {
        let intent = RecordId(uuid::Uuid::from_u128(1));
        let [(first, _), (second, _), _] = names(intent).collect::<Vec<_>>().try_into().unwrap();
        let books = |state, receipts: &[(&str, i64)], suspense: &[(&str, i64)]| Books {
            states: BTreeMap::from([(intent, state)]),
            receipts: receipts.iter().map(|(number, amount)| ((*number).to_owned(), intent, *amount)).collect(),
            suspense: suspense.iter().map(|(number, amount)| ((*number).to_owned(), *amount)).collect(),
            claims: BTreeMap::new(),
        };
        let paid = [charge(&first, "A", 100)];
        let twice = [charge(&first, "A", 100), charge(&second, "B", 100)];
        assert!(books(IntentState::Paid, &[("A", 100)], &[]).judge(&paid).is_sound());
        assert!(books(IntentState::Review, &[], &[("A", 100)]).judge(&paid).is_sound());
        assert_eq!(books(IntentState::Review, &[("A", 100)], &[("B", 100)]).judge(&twice).charged_twice, 1);
        assert_eq!(books(IntentState::Paid, &[("A", 100)], &[]).judge(&twice).lost_minor, 100);
        assert_eq!(books(IntentState::Paid, &[("A", 200)], &[]).judge(&paid).unproven_receipts, 1);
        assert_eq!(books(IntentState::Paid, &[("A", 200)], &[]).judge(&paid).lost_minor, 100);
        assert_eq!(books(IntentState::Paid, &[("Z", 100)], &[("A", 100)]).judge(&paid).unproven_receipts, 1);
        assert_eq!(books(IntentState::Paid, &[("A", 100), ("A", 100)], &[]).judge(&paid).unproven_receipts, 1);
        assert_eq!(books(IntentState::Open, &[], &[("A", 100)]).judge(&paid).unsettled, 1);
    }
}
