//! Customers and cashiers: who promises, who tries again, who gives up, who pays by hand.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crdt_model::books::{IntentState, Payment};
use crdt_model::ids::RecordId;
use crdt_model::money::{Currency, Money};
use crdt_model::payment::{ATTEMPTS_MAX, account_reference};
use crdt_model::record::{CodeClaim, Fact, GiveUp, Instead, Intent, IntentConfirmed, IntentRetry, PaymentFact, Source};
use crdt_model::shop::{Operation, Phone};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::wires::exchange;
use crate::payments::simulator::{Dice, Offline};
use crate::payments::wire::{Auth, WireRequest};
use crate::relay::{RelayStatus, Waiting};
use crate::shop_handle::ShopHandle;

/// The relay as the people of the shop find it: there, or not.
#[derive(Debug, Default)]
pub(super) struct Counter {
    running: Mutex<Option<(ShopHandle, watch::Receiver<RelayStatus>)>>,
}

impl Counter {
    pub(super) fn open(&self, shop: ShopHandle, status: watch::Receiver<RelayStatus>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some((shop, status));
    }

    pub(super) fn close(&self) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn shop(&self) -> Option<ShopHandle> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(shop, _)| shop.clone())
    }

    fn waiting(&self, intent: RecordId) -> Option<Waiting> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().and_then(|(_, status)| status.borrow().waiting.get(&intent).cloned())
    }
}

/// One customer, from the promise until nothing more is to be done.
pub(super) struct Customer {
    pub(super) counter: Arc<Counter>,
    pub(super) provider: Arc<Offline>,
    pub(super) dice: Dice,
    pub(super) key: String,
    pub(super) promises: Arc<Mutex<Vec<RecordId>>>,
}

/// How long the shop sells.
const OPEN_S: u64 = 6 * 3_600;
/// How long a cashier keeps an eye on a payment.
const PATIENCE_LOOKS: u32 = 400;

impl Customer {
    pub(super) async fn visit(mut self) {
        tokio::time::sleep(Duration::from_secs(self.dice.below(OPEN_S))).await;
        let amount_minor = i64::try_from(self.dice.below(500) + 1).unwrap_or(1) * 100;
        // A few phones come again and again.
        let subscriber = if self.dice.permille(100) { self.dice.below(10) } else { 1_000 + self.dice.below(900_000) };
        let intent = self.promise(amount_minor, &format!("25471{subscriber:07}")).await;
        self.promises.lock().unwrap_or_else(PoisonError::into_inner).push(intent);
        for _ in 0..PATIENCE_LOOKS {
            tokio::time::sleep(Duration::from_secs(120 + self.dice.below(300))).await;
            let Some(payment) = self.payment(intent).await else { continue };
            match payment.state {
                IntentState::Paid | IntentState::Void | IntentState::Review => return,
                IntentState::Declined if !self.try_again(&payment).await => return,
                IntentState::Declined => {}
                IntentState::Open => self.mind(&payment).await,
            }
        }
    }

    async fn promise(&mut self, amount_minor: i64, phone: &str) -> RecordId {
        let intent = Intent {
            source: Some(Source { instance: "simulation".to_owned(), key: self.key.clone() }),
            sale: None,
            amount: Money::new(amount_minor, Currency::KES),
            provider: "mpesa".to_owned(),
            ledger: None,
        };
        loop {
            let phones = vec![Phone { fact: 0, tender: 0, number: phone.to_owned() }];
            let operation = Operation { facts: vec![Fact::Intent(intent.clone())], phones, ..Operation::default() };
            if let Some(record) = self.record(operation).await {
                return record;
            }
            // Recorded, and the answer was cut off: as the API, the till finds it by its own id.
            if let Some(record) = self.recorded().await {
                return record;
            }
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
    }

    async fn recorded(&self) -> Option<RecordId> {
        let key = self.key.clone();
        let find = move |shop: &crdt_model::shop::Shop| {
            let record = RecordId::from_client(shop.business(), "simulation", &key);
            shop.books().payment(record).map(|payment| payment.intent)
        };
        self.counter.shop()?.ask(find).await.ok()?
    }

    /// A declined customer may be asked again, pay by hand, or leave. Cashiers ask again whatever
    /// they are allowed to; only a customer whose provider went back on its word objects, showing
    /// its message, since nothing else could tell.
    async fn try_again(&mut self, payment: &Payment) -> bool {
        let accounts: Vec<String> = (1..)
            .take(ATTEMPTS_MAX)
            .map(|number| account_reference(payment.intent.0, number).as_str().to_owned())
            .collect();
        if self.provider.has_broken_its_word(&accounts) {
            return false;
        }
        let last = payment.declines.iter().map(|decline| decline.attempt).max().unwrap_or(0);
        if self.dice.permille(150) {
            return self.pay_by_hand(payment).await;
        }
        if last as usize >= ATTEMPTS_MAX || self.dice.permille(250) {
            return false;
        }
        let retry = PaymentFact::Retry(IntentRetry { intent: payment.intent, after_attempt: last });
        self.record(Operation { facts: vec![Fact::Payment(retry)], ..Operation::default() }).await;
        true
    }

    async fn pay_by_hand(&mut self, payment: &Payment) -> bool {
        let body = json!({
            "phone": "254799999999", "amount_minor": payment.amount.minor, "account": "soda",
            "confirmations": self.dice.below(3), "list_delay_ms": self.dice.below(3_600_000),
        });
        let request = WireRequest {
            method: Method::POST,
            url: "http://simulator/simulator/pay".to_owned(),
            auth: Auth::None,
            headers: Vec::new(),
            body: Some(serde_json::to_vec(&body).unwrap_or_default()),
        };
        let answer = exchange(self.provider.router(), request, Duration::from_secs(60)).await;
        let answer: Value =
            answer.map(|answer| serde_json::from_slice(&answer.body).unwrap_or_default()).unwrap_or_default();
        let Some(code) = answer.get("receipt_number").and_then(Value::as_str).map(str::to_owned) else { return false };
        for _ in 0..20 {
            let claim = CodeClaim { intent: payment.intent, provider: "mpesa".to_owned(), code: code.clone() };
            let facts = vec![Fact::Payment(PaymentFact::CodeClaim(claim))];
            if self.record(Operation { facts, ..Operation::default() }).await.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        // Whether the money comes or not, it is declined until then.
        false
    }

    /// An open payment: the cashier confirms, waits, or gives it up.
    async fn mind(&mut self, payment: &Payment) {
        let intent = payment.intent;
        let fact = match self.counter.waiting(intent) {
            Some(Waiting::Confirmation) if self.dice.permille(700) => Fact::IntentConfirmed(IntentConfirmed { intent }),
            Some(Waiting::Confirmation | Waiting::Person) => give_up(intent, Instead::Void),
            _ if self.dice.permille(20) => give_up(intent, Instead::Cash),
            _ => return,
        };
        self.record(Operation { facts: vec![fact], ..Operation::default() }).await;
    }

    async fn payment(&self, intent: RecordId) -> Option<Payment> {
        self.counter.shop()?.ask(move |shop| shop.books().payment(intent)).await.ok()?
    }

    async fn record(&self, operation: Operation) -> Option<RecordId> {
        let acted = self.counter.shop()?.record(operation).await.ok()?;
        acted.records.first().copied()
    }
}

fn give_up(intent: RecordId, instead: Instead) -> Fact {
    Fact::Payment(PaymentFact::GiveUp(GiveUp { intent, instead }))
}
