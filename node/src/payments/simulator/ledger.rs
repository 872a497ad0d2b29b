//! What the simulator knows: its token, its checkouts, and what it really charged.

use std::collections::BTreeMap;
use std::time::Duration;

use crdt_model::payment::ProviderIds;
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::behaviour::Behaviour;

/// One real charge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerLine {
    /// What the shop called it.
    pub account_reference: String,
    /// Who paid, masked.
    pub phone: String,
    /// Cents.
    pub amount_minor: i64,
    /// Starts with TEST.
    pub receipt_number: String,
    /// The provider's id of the checkout.
    pub checkout_request_id: String,
    /// Milliseconds since 1970 UTC.
    pub at_ms: u64,
}

/// What has been asked of the simulator since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Tokens issued; each made the former invalid.
    pub tokens: u64,
    /// Pushes that passed every check.
    pub pushes: u64,
    /// Customers charged.
    pub charges: u64,
    /// Callbacks that were taken with a 2xx.
    pub callbacks_taken: u64,
    /// Callbacks that were not.
    pub callbacks_lost: u64,
}

pub(super) struct Ledger {
    run: [u8; 32],
    token: Option<(String, Instant)>,
    /// By checkout id: its request id, and the result, which is `None` while the customer is
    /// being asked.
    checkouts: BTreeMap<String, (String, Option<String>)>,
    pub(super) behaviours: BTreeMap<String, Behaviour>,
    pub(super) default_behaviour: Option<Behaviour>,
    pub(super) charges: Vec<LedgerLine>,
    pub(super) counts: Counts,
}

/// Pushes that one run of the simulator takes; its memory is bounded.
const PUSHES_MAX: u64 = 1_000_000;

const RECEIPT_CHARS: usize = 12;

impl Ledger {
    pub(super) fn new(run: [u8; 32]) -> Self {
        Self {
            run,
            token: None,
            checkouts: BTreeMap::new(),
            behaviours: BTreeMap::new(),
            default_behaviour: None,
            charges: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// A new token. The former is no longer good.
    pub(super) fn issue_token(&mut self, life: Duration) -> String {
        self.counts.tokens += 1;
        let text = HEXLOWER.encode(&self.derive("token", self.counts.tokens));
        self.token = Some((text.clone(), Instant::now() + life));
        text
    }

    pub(super) fn token_is_good(&self, text: &str) -> bool {
        self.token.as_ref().is_some_and(|(token, ends)| token == text && Instant::now() < *ends)
    }

    pub(super) fn is_full(&self) -> bool {
        self.counts.pushes >= PUSHES_MAX
    }

    /// Ids for one push.
    pub(super) fn open_checkout(&mut self) -> ProviderIds {
        self.counts.pushes += 1;
        let number = self.counts.pushes;
        let text = HEXLOWER.encode(&self.derive("checkout", number));
        let short: String = text.chars().take(20).collect();
        let checkout_id = format!("ws_CO_TEST{short}");
        let request_id = format!("TEST-{number}-1");
        self.checkouts.insert(checkout_id.clone(), (request_id.clone(), None));
        ProviderIds { request_id, checkout_id }
    }

    /// A checkout's request id and how it ended; no result while it is open.
    pub(super) fn checkout(&self, checkout_id: &str) -> Option<(&str, Option<&str>)> {
        let (request_id, result) = self.checkouts.get(checkout_id)?;
        Some((request_id, result.as_deref()))
    }

    pub(super) fn decline(&mut self, ids: &ProviderIds, code: &str) {
        let closed = (ids.request_id.clone(), Some(code.to_owned()));
        self.checkouts.insert(ids.checkout_id.clone(), closed);
    }

    /// Charges the customer and gives the receipt number.
    pub(super) fn charge(
        &mut self,
        ids: &ProviderIds,
        account_reference: &str,
        phone: String,
        amount_minor: i64,
        at_ms: u64,
    ) -> String {
        self.counts.charges += 1;
        let code = BASE32_NOPAD.encode(&self.derive("receipt", self.counts.charges));
        let receipt_number: String = format!("TEST{code}").chars().take(RECEIPT_CHARS + 4).collect();
        let closed = (ids.request_id.clone(), Some("0".to_owned()));
        self.checkouts.insert(ids.checkout_id.clone(), closed);
        self.charges.push(LedgerLine {
            account_reference: account_reference.to_owned(),
            phone,
            amount_minor,
            receipt_number: receipt_number.clone(),
            checkout_request_id: ids.checkout_id.clone(),
            at_ms,
        });
        receipt_number
    }

    fn derive(&self, what: &str, number: u64) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.run);
        hasher.update(&number.to_le_bytes()).update(what.as_bytes());
        hasher.finalize().into()
    }
}
