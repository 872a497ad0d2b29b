//! What the simulator knows: its token, its checkouts, and what it really charged.

use std::collections::BTreeMap;
use std::time::Duration;

use crdt_model::payment::ProviderIds;
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::behaviour::{Behaviour, StatusWay};

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
    /// When it appears in the list of transactions.
    #[serde(default)]
    pub listed_at_ms: u64,
    /// It went back to the customer.
    #[serde(default)]
    pub reversed: bool,
    /// The provider had called it a certain failure before: it went back on its word.
    #[serde(default)]
    pub denied: bool,
}

/// What a charge is made of.
#[derive(Debug, Clone)]
pub(super) struct Charge {
    pub(super) account: String,
    pub(super) phone: String,
    pub(super) amount_minor: i64,
    pub(super) at_ms: u64,
    pub(super) listed_at_ms: u64,
    pub(super) denied: bool,
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
    /// Queries that were answered.
    #[serde(default)]
    pub queries: u64,
    /// Requests that were refused because there were too many.
    #[serde(default)]
    pub limited: u64,
    /// Pages of the list that were answered.
    #[serde(default)]
    pub pulls: u64,
    /// Reversals that were carried out.
    #[serde(default)]
    pub reversals: u64,
    /// Results of reversals that were not taken.
    #[serde(default)]
    pub results_lost: u64,
    /// Forged callbacks that the relay took for true: a fault of the relay's.
    #[serde(default)]
    pub forgeries_taken: u64,
}

#[derive(Debug)]
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
    /// Where payments made by hand are reported.
    pub(super) confirmations: Option<String>,
    /// What queries say of a checkout, whatever is true.
    query_codes: BTreeMap<String, String>,
    /// Queries in the running minute.
    queries: Minute,
    /// Pushes in the running minute.
    pushes: Minute,
    /// How often a token was looked at.
    token_checks: u64,
    /// How status queries about a receipt number go, and how many there were.
    status_ways: BTreeMap<String, StatusWay>,
    statuses: BTreeMap<String, u64>,
}

/// How many requests of a kind came in the running minute.
#[derive(Debug, Clone, Copy, Default)]
struct Minute {
    number: u64,
    count: u32,
}

impl Minute {
    fn admits(&mut self, limit: Option<u32>, at_ms: u64) -> bool {
        let number = at_ms / 60_000;
        if self.number != number {
            *self = Self { number, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        limit.is_none_or(|limit| self.count <= limit)
    }
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
            confirmations: None,
            query_codes: BTreeMap::new(),
            queries: Minute::default(),
            pushes: Minute::default(),
            token_checks: 0,
            status_ways: BTreeMap::new(),
            statuses: BTreeMap::new(),
        }
    }

    /// Counts a look at a token.
    pub(super) fn count_token_check(&mut self) -> u64 {
        self.token_checks += 1;
        self.token_checks
    }

    /// How status queries about a receipt number go from now on.
    pub(super) fn set_status_way(&mut self, receipt_number: &str, way: StatusWay) {
        self.status_ways.insert(receipt_number.to_owned(), way);
    }

    pub(super) fn status_way(&self, receipt_number: &str) -> Option<StatusWay> {
        self.status_ways.get(receipt_number).copied()
    }

    /// Counts a status query about a receipt number.
    pub(super) fn count_status(&mut self, receipt_number: &str) -> u64 {
        let count = self.statuses.entry(receipt_number.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// Whether one more query is within the limit.
    pub(super) fn admit_query(&mut self, limit: Option<u32>, at_ms: u64) -> bool {
        let admitted = self.queries.admits(limit, at_ms);
        self.counts.limited += u64::from(!admitted);
        admitted
    }

    /// Whether one more push is within the limit.
    pub(super) fn admit_push(&mut self, limit: Option<u32>, at_ms: u64) -> bool {
        let admitted = self.pushes.admits(limit, at_ms);
        self.counts.limited += u64::from(!admitted);
        admitted
    }

    /// What queries say of a checkout from now on, whatever is true.
    pub(super) fn lie(&mut self, ids: &ProviderIds, code: &str) {
        self.query_codes.insert(ids.checkout_id.clone(), code.to_owned());
    }

    pub(super) fn lie_about(&self, checkout_id: &str) -> Option<&str> {
        self.query_codes.get(checkout_id).map(String::as_str)
    }

    /// The provider says how a checkout ended, and may take it back.
    pub(super) fn say(&mut self, ids: &ProviderIds, code: &str) {
        self.decline(ids, code);
    }

    /// Another user of the credentials has fetched a token: ours is no longer good.
    pub(super) fn invalidate_token(&mut self) {
        self.token = None;
    }

    /// Takes a charge back; false if that was done before, `None` if there is none.
    pub(super) fn reverse(&mut self, receipt_number: &str) -> Option<bool> {
        let charge = self.charges.iter_mut().find(|charge| charge.receipt_number == receipt_number)?;
        if charge.reversed {
            return Some(false);
        }
        charge.reversed = true;
        self.counts.reversals += 1;
        Some(true)
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
    pub(super) fn charge(&mut self, ids: Option<&ProviderIds>, charge: Charge) -> String {
        self.counts.charges += 1;
        let code = BASE32_NOPAD.encode(&self.derive("receipt", self.counts.charges));
        let receipt_number: String = format!("TEST{code}").chars().take(RECEIPT_CHARS + 4).collect();
        if let Some(ids) = ids {
            self.checkouts.insert(ids.checkout_id.clone(), (ids.request_id.clone(), Some("0".to_owned())));
        }
        self.charges.push(LedgerLine {
            account_reference: charge.account,
            phone: charge.phone,
            amount_minor: charge.amount_minor,
            receipt_number: receipt_number.clone(),
            checkout_request_id: ids.map(|ids| ids.checkout_id.clone()).unwrap_or_default(),
            at_ms: charge.at_ms,
            listed_at_ms: charge.listed_at_ms,
            reversed: false,
            denied: charge.denied,
        });
        receipt_number
    }

    fn derive(&self, what: &str, number: u64) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.run);
        hasher.update(&number.to_le_bytes()).update(what.as_bytes());
        hasher.finalize().into()
    }
}
