//! What is said about payments beside intents, receipts and declines: reviews, requests, money
//! in suspense, and what two people agree on. Pure folds, like the rest of the books.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use super::ledgers::Way;
use super::placed::{Key, Placed};
use super::tally::Sign;
use crate::ids::{DeviceId, RecordId};
use crate::money::Money;
use crate::payment::ReviewReason;
use crate::record::{Evidence, Instead, OutcomeState, PaymentFact, Settlement, Stage};
use crate::time::{Hlc, Timestamp};

/// Why people must look at an intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reviewed {
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Why.
    pub reason: ReviewReason,
    /// When the ledger said so.
    pub time: Hlc,
}

/// A wish to give an intent up, and the ledger's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenUp {
    /// The request.
    pub request: RecordId,
    /// What happens instead.
    pub instead: Instead,
    /// When it was asked.
    pub time: Hlc,
    /// The ledger's answer: refused while an attempt may still charge; `None` until it comes.
    pub granted: Option<bool>,
}

/// Money that fits no payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuspenseEntry {
    /// Its record.
    pub record: RecordId,
    /// The provider.
    pub provider: String,
    /// The provider's receipt number, or its checkout id.
    pub number: String,
    /// How much; zero while unknown.
    pub amount: Money,
    /// When it was paid.
    pub paid_at: Timestamp,
    /// How the ledger knows.
    pub evidence: Evidence,
    /// Why it fits nothing.
    pub reason: Option<ReviewReason>,
    /// The intent that it came for, as far as one can tell.
    pub intent: Option<RecordId>,
    /// What the customer wrote as the account.
    pub account: String,
    /// No real money.
    pub test: bool,
    /// The relay that booked it.
    pub device: DeviceId,
    /// When it was booked.
    pub time: Hlc,
    /// What two people agreed on.
    pub settled: Option<Settlement>,
}

/// A proposal and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposalState {
    /// Its record.
    pub proposal: RecordId,
    /// The intent, suspense or receipt.
    pub subject: RecordId,
    /// What to do.
    pub settlement: Settlement,
    /// Why.
    pub note: String,
    /// The maker's device.
    pub maker: DeviceId,
    /// When it was proposed.
    pub time: Hlc,
    /// The checker's device, whether it agreed, its note, and when.
    pub checked: Option<(DeviceId, bool, String, Hlc)>,
    /// What the ledger did, the latest last.
    pub outcomes: Vec<(OutcomeState, String, Hlc)>,
}

impl ProposalState {
    /// Whether the ledger has done it, or may have.
    #[must_use]
    pub fn may_be_done(&self) -> bool {
        self.outcomes.last().is_some_and(|(state, ..)| *state != OutcomeState::Failed)
    }
}

#[derive(Debug, Clone, Default, Encode, Decode)]
pub(super) struct Notes {
    #[n(0)]
    reviews: BTreeMap<(RecordId, Key), (DeviceId, u32, ReviewReason)>,
    #[n(1)]
    revoked: BTreeMap<(RecordId, Key), (DeviceId, RecordId)>,
    #[n(2)]
    retries: BTreeMap<(RecordId, Key), u32>,
    #[n(3)]
    give_ups: BTreeMap<(RecordId, Key), (DeviceId, RecordId, Instead)>,
    #[n(4)]
    answers: BTreeMap<(RecordId, Key), (DeviceId, RecordId, bool, Instead)>,
    #[n(5)]
    claims: BTreeMap<(RecordId, Key), String>,
    #[n(6)]
    suspense: BTreeMap<RecordId, Row>,
    #[n(7)]
    proposals: BTreeMap<(RecordId, Key), Made>,
    #[n(8)]
    checks: BTreeMap<(RecordId, Key), (DeviceId, bool, String)>,
    #[n(9)]
    outcomes: BTreeMap<(RecordId, Key), (OutcomeState, String)>,
    /// The subject of each proposal.
    #[n(10)]
    subjects: BTreeMap<RecordId, RecordId>,
    /// The intent of each claimed receipt number.
    #[n(11)]
    claimed: BTreeMap<(String, String), RecordId>,
    #[n(12)]
    progress: BTreeMap<(RecordId, Key), (DeviceId, u32, Stage)>,
}

#[derive(Debug, Clone, Encode, Decode)]
struct Made {
    #[n(0)]
    proposal: RecordId,
    #[n(1)]
    device: DeviceId,
    #[n(2)]
    settlement: Settlement,
    #[n(3)]
    note: String,
}

#[derive(Debug, Clone, Encode, Decode)]
struct Row {
    #[n(0)]
    provider: String,
    #[n(1)]
    number: String,
    #[n(2)]
    amount: Money,
    #[n(3)]
    paid_at: Timestamp,
    #[n(4)]
    evidence: Evidence,
    #[n(5)]
    reason: Option<ReviewReason>,
    #[n(6)]
    intent: Option<RecordId>,
    #[n(7)]
    account: String,
    #[n(8)]
    test: bool,
    #[n(9)]
    device: DeviceId,
    #[n(10)]
    time: Hlc,
}

impl Notes {
    /// Counts a fact, or takes it back. Gives the intent or other subject that it bears on.
    pub(super) fn fold(&mut self, placed: &Placed<'_>, fact: &PaymentFact, sign: Sign) -> Option<RecordId> {
        let (key, device) = (placed.key(), placed.device);
        match fact {
            PaymentFact::Suspense(fact) => {
                let row = Row {
                    provider: fact.provider.clone(),
                    number: fact.number.clone(),
                    amount: fact.amount,
                    paid_at: fact.paid_at,
                    evidence: fact.evidence,
                    reason: fact.reason,
                    intent: fact.intent,
                    account: fact.account.clone(),
                    test: fact.test,
                    device,
                    time: placed.time,
                };
                put(&mut self.suspense, placed.id, row, sign);
                fact.intent
            }
            PaymentFact::Revoked(fact) => {
                put(&mut self.revoked, (fact.intent, key), (device, fact.receipt), sign);
                Some(fact.intent)
            }
            PaymentFact::Review(fact) => {
                put(&mut self.reviews, (fact.intent, key), (device, fact.attempt, fact.reason), sign);
                Some(fact.intent)
            }
            PaymentFact::Retry(fact) => {
                put(&mut self.retries, (fact.intent, key), fact.after_attempt, sign);
                Some(fact.intent)
            }
            PaymentFact::GiveUp(fact) => {
                put(&mut self.give_ups, (fact.intent, key), (device, placed.id, fact.instead), sign);
                Some(fact.intent)
            }
            PaymentFact::GiveUpAnswer(fact) => {
                let answer = (device, fact.request, fact.granted, fact.instead);
                put(&mut self.answers, (fact.intent, key), answer, sign);
                Some(fact.intent)
            }
            PaymentFact::CodeClaim(fact) => {
                put(&mut self.claims, (fact.intent, key), fact.code.clone(), sign);
                put(&mut self.claimed, (fact.provider.clone(), fact.code.clone()), fact.intent, sign);
                Some(fact.intent)
            }
            PaymentFact::Progress(fact) => {
                put(&mut self.progress, (fact.intent, key), (device, fact.attempt, fact.stage), sign);
                Some(fact.intent)
            }
            PaymentFact::Proposal(fact) => {
                let made = Made { proposal: placed.id, device, settlement: fact.settlement, note: fact.note.clone() };
                put(&mut self.proposals, (fact.subject, key), made, sign);
                put(&mut self.subjects, placed.id, fact.subject, sign);
                Some(fact.subject)
            }
            PaymentFact::Check(fact) => {
                put(&mut self.checks, (fact.proposal, key), (device, fact.agreed, fact.note.clone()), sign);
                self.subjects.get(&fact.proposal).copied()
            }
            PaymentFact::Outcome(fact) => {
                put(&mut self.outcomes, (fact.proposal, key), (fact.state, fact.detail.clone()), sign);
                self.subjects.get(&fact.proposal).copied()
            }
            // Kept beside these notes; they bear on the intent all the same.
            PaymentFact::Released(fact) => Some(fact.intent),
            PaymentFact::CashTaken(fact) => Some(fact.intent),
            PaymentFact::Moved(_) => None,
        }
    }

    /// What its ledger's word and no agreement since keep in review.
    pub(super) fn in_review(&self, intent: RecordId, way: &Way) -> bool {
        let mut last =
            by(&self.reviews, intent).filter(|(_, (device, ..))| way.hears(*device)).map(|((_, key), _)| key);
        last.next_back().is_some_and(|last| self.agreed(intent).is_none_or(|(at, _)| at < *last))
    }

    pub(super) fn reviews(&self, intent: RecordId, way: &Way) -> Vec<Reviewed> {
        let all = by(&self.reviews, intent).filter(|(_, (device, ..))| way.hears(*device));
        all.map(|((_, key), (_, attempt, reason))| Reviewed { attempt: *attempt, reason: *reason, time: key.time })
            .collect()
    }

    /// How far its latest attempt has come.
    pub(super) fn progress(&self, intent: RecordId, way: &Way) -> Option<(u32, Stage)> {
        let said = by(&self.progress, intent).filter(|(_, (device, ..))| way.hears(*device));
        said.map(|((_, key), (_, attempt, stage))| (*attempt, *key, *stage))
            .max()
            .map(|(attempt, _, stage)| (attempt, stage))
    }

    pub(super) fn is_revoked(&self, intent: RecordId, receipt: RecordId, way: &Way) -> bool {
        by(&self.revoked, intent).any(|(_, (device, revoked))| *revoked == receipt && way.hears(*device))
    }

    pub(super) fn retries(&self, intent: RecordId) -> Vec<(u32, Hlc)> {
        by(&self.retries, intent).map(|((_, key), after)| (*after, key.time)).collect()
    }

    pub(super) fn last_retry(&self, intent: RecordId) -> Option<Key> {
        by(&self.retries, intent).map(|((_, key), _)| *key).next_back()
    }

    /// The first answer that grants, else the latest wish.
    pub(super) fn given_up(&self, intent: RecordId, way: &Way) -> Option<GivenUp> {
        let answer = |request: RecordId| {
            let mut answers = by(&self.answers, intent);
            answers.find(|(_, (device, asked, ..))| *asked == request && way.hears(*device))
        };
        let wishes = by(&self.give_ups, intent).map(|((_, key), (_, request, instead))| GivenUp {
            request: *request,
            instead: *instead,
            time: key.time,
            granted: answer(*request).map(|(_, (_, _, granted, _))| *granted),
        });
        let mut latest = None;
        for wish in wishes {
            if wish.granted == Some(true) {
                return Some(wish);
            }
            latest = Some(wish);
        }
        latest
    }

    /// The device on which somebody wished to give an intent up.
    pub(super) fn asked_by(&self, intent: RecordId, wish: RecordId) -> Option<DeviceId> {
        by(&self.give_ups, intent).find(|(_, (_, request, _))| *request == wish).map(|(_, (device, ..))| *device)
    }

    /// Intents with a wish to give them up that no ledger has answered.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = RecordId> + '_ {
        self.give_ups.iter().filter_map(|((intent, _), (_, request, _))| {
            let answered = by(&self.answers, *intent).any(|(_, (_, asked, ..))| asked == request);
            (!answered).then_some(*intent)
        })
    }

    pub(super) fn retried(&self) -> impl Iterator<Item = RecordId> + '_ {
        self.retries.keys().map(|(intent, _)| *intent)
    }

    pub(super) fn all_codes(&self) -> impl Iterator<Item = (RecordId, String)> + '_ {
        self.claims.iter().map(|((intent, _), code)| (*intent, code.clone()))
    }

    pub(super) fn codes(&self, intent: RecordId) -> Vec<String> {
        by(&self.claims, intent).map(|(_, code)| code.clone()).collect()
    }

    pub(super) fn claimant(&self, provider: &str, code: &str) -> Option<RecordId> {
        self.claimed.get(&(provider.to_owned(), code.to_owned())).copied()
    }

    /// The latest agreement about a subject: when its check was made, and what was agreed. What the
    /// ledger could not do leaves the subject as it was.
    pub(super) fn agreed(&self, subject: RecordId) -> Option<(Key, Settlement)> {
        let failed = |made: &&(_, &Made)| {
            let last = by(&self.outcomes, made.1.proposal).next_back();
            last.is_some_and(|(_, (state, _))| *state == OutcomeState::Failed)
        };
        let made = by(&self.proposals, subject).filter(|made| !failed(&made));
        let agreed = made.filter_map(|(_, made)| {
            let (key, agreed) = self.decision(made)?;
            agreed.then_some((key, made.settlement))
        });
        agreed.max_by_key(|(key, _)| *key)
    }

    /// The first word of somebody other than the maker.
    fn decision(&self, made: &Made) -> Option<(Key, bool)> {
        let others = by(&self.checks, made.proposal).filter(|(_, (device, ..))| *device != made.device);
        others.map(|((_, key), (_, agreed, _))| (*key, *agreed)).next()
    }

    pub(super) fn proposals(&self, subject: RecordId) -> Vec<ProposalState> {
        by(&self.proposals, subject).map(|((_, key), made)| self.describe(subject, *key, made)).collect()
    }

    /// Every proposal, those about one subject together.
    pub(super) fn all_proposals(&self) -> impl Iterator<Item = ProposalState> + '_ {
        self.proposals.iter().map(|((subject, key), made)| self.describe(*subject, *key, made))
    }

    pub(super) fn proposal(&self, proposal: RecordId) -> Option<ProposalState> {
        let subject = self.subjects.get(&proposal)?;
        self.proposals(*subject).into_iter().find(|state| state.proposal == proposal)
    }

    fn describe(&self, subject: RecordId, key: Key, made: &Made) -> ProposalState {
        let others = by(&self.checks, made.proposal).filter(|(_, (device, ..))| *device != made.device);
        let checked =
            others.map(|((_, key), (device, agreed, note))| (*device, *agreed, note.clone(), key.time)).next();
        let outcomes = by(&self.outcomes, made.proposal);
        ProposalState {
            proposal: made.proposal,
            subject,
            settlement: made.settlement,
            note: made.note.clone(),
            maker: made.device,
            time: key.time,
            checked,
            outcomes: outcomes.map(|((_, key), (state, detail))| (*state, detail.clone(), key.time)).collect(),
        }
    }

    pub(super) fn suspense(&self, record: RecordId) -> Option<SuspenseEntry> {
        self.suspense.get(&record).map(|row| self.suspended(record, row))
    }

    pub(super) fn all_suspense(&self) -> impl Iterator<Item = SuspenseEntry> + '_ {
        self.suspense.iter().map(|(record, row)| self.suspended(*record, row))
    }

    fn suspended(&self, record: RecordId, row: &Row) -> SuspenseEntry {
        SuspenseEntry {
            record,
            provider: row.provider.clone(),
            number: row.number.clone(),
            amount: row.amount,
            paid_at: row.paid_at,
            evidence: row.evidence,
            reason: row.reason,
            intent: row.intent,
            account: row.account.clone(),
            test: row.test,
            device: row.device,
            time: row.time,
            settled: self.agreed(record).map(|(_, settlement)| settlement),
        }
    }
}

pub(super) fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V, sign: Sign) {
    match sign {
        Sign::Count => drop(map.insert(key, value)),
        Sign::TakeBack => drop(map.remove(&key)),
    }
}

pub(super) fn by<V>(
    map: &BTreeMap<(RecordId, Key), V>,
    id: RecordId,
) -> impl DoubleEndedIterator<Item = (&(RecordId, Key), &V)> {
    map.range((id, Key::FIRST)..=(id, HIGHEST))
}

const HIGHEST: Key =
    Key { time: Hlc(u64::MAX), journal: crate::ids::JournalId([u8::MAX; 16]), seq: u64::MAX, index: u32::MAX };
