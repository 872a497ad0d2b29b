//! A relay, its shop and the simulator in one process, over loopback HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crdt_model::books::{IntentState, Payment};
use crdt_model::ids::{DeviceId, OwnerKey, RecordId};
use crdt_model::money::{Currency, Money};
use crdt_model::payment::{Attempt, AttemptState, callback_token};
use crdt_model::record::{Certificate, Fact, Genesis, Intent, Role};
use crdt_model::shop::{Identity, Operation, Phone};
use crdt_model::time::Timestamp;
use ed25519_dalek::SigningKey;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use transport::{LinkIds, PeerKey};

use super::super::{Clock, Relay, RelayConfig, RelayStatus, attempts};
use crate::links::{self, LinkTable};
use crate::payments::simulator::{self, Behaviour, Counts, LedgerLine, SimulatorConfig};
use crate::payments::{MpesaConfig, callback_path};
use crate::shop_handle::ShopHandle;
use crate::shop_loop::ShopLoop;
use crate::storage::MemoryDisk;

pub(super) const PAYS: &str = "254708374149";
pub(super) const CANCELS: &str = "254700000001";
pub(super) const NEVER_ANSWERS: &str = "254700000004";
pub(super) const THREE_CALLBACKS: &str = "254700000007";
pub(super) const CALLBACK_FIRST: &str = "254700000008";

/// Longer than any of these tests takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn patiently<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// One device of the shop.
pub(super) struct Device {
    pub(super) shop: ShopHandle,
    pub(super) identity: Identity,
    links: Arc<LinkTable>,
}

pub(super) fn identity(number: u8, role: Role, currency: Currency) -> Identity {
    let owner = SigningKey::from_bytes(&[250; 32]);
    let genesis = Genesis {
        name: "Duka".to_owned(),
        currency,
        founded: Timestamp(1_700_000_000_000),
        owners: vec![OwnerKey(owner.verifying_key().to_bytes())],
        recovery: OwnerKey([9; 32]),
        utc_offset_minutes: 180,
        nonce: [4; 16],
    };
    let key = SigningKey::from_bytes(&[number; 32]);
    let device = DeviceId(key.verifying_key().to_bytes());
    let name = format!("device {number}");
    let certificate = Certificate::sign(genesis.business(), device, name, role, genesis.founded, &owner);
    Identity { genesis, certificate, key, entropy: [number; 32], carries_own: false }
}

impl Device {
    /// Starts the device's shop on `disk`; one that ran on it before is cut off as by a crash.
    pub(super) fn start(disk: &MemoryDisk, mut identity: Identity, begin_epoch: bool) -> Self {
        static STARTS: AtomicU64 = AtomicU64::new(0);
        let start = STARTS.fetch_add(1, Ordering::Relaxed);
        identity.entropy[..8].copy_from_slice(&start.to_le_bytes());
        let storage = disk.open();
        let changes = broadcast::Sender::new(1_024);
        let links = Arc::new(LinkTable::default());
        let opened =
            ShopLoop::open(Box::new(storage), identity.clone(), begin_epoch, Arc::clone(&links), changes, None)
                .unwrap();
        // A crash ends it with an error, which is what the test wants.
        let (shop, attendant) = ShopHandle::open(opened);
        tokio::spawn(async move { drop(attendant.run().await) });
        Self { shop, identity, links }
    }

    fn peer(&self) -> PeerKey {
        PeerKey(self.identity.certificate.device.0)
    }

    /// Promises to ask a customer for `amount_minor`, and gives the intent.
    pub(super) async fn promise(&self, provider: &str, amount_minor: i64, phone: &str) -> RecordId {
        let intent = Intent {
            source: None,
            sale: None,
            amount: Money::new(amount_minor, self.identity.genesis.currency),
            provider: provider.to_owned(),
            ledger: None,
        };
        let phones = vec![Phone { fact: 0, tender: 0, number: phone.to_owned() }];
        let operation = Operation { facts: vec![Fact::Intent(intent)], phones, ..Operation::default() };
        self.shop.record(operation).await.unwrap().records[0]
    }

    pub(super) async fn payment(&self, intent: RecordId) -> Option<Payment> {
        self.shop.ask(move |shop| shop.books().payment(intent)).await.unwrap()
    }

    /// Waits until the books have an intent in a state.
    pub(super) async fn until(&self, intent: RecordId, state: IntentState) -> Payment {
        let mut changes = self.shop.changes();
        let wait = async {
            loop {
                match self.payment(intent).await.filter(|payment| payment.state == state) {
                    Some(payment) => return payment,
                    None => drop(changes.recv().await),
                }
            }
        };
        patiently(&format!("{state:?}"), wait).await
    }
}

pub(super) fn link(ids: &LinkIds, a: &Device, b: &Device) {
    let (left, right) = transport::memory_pair_with(ids, a.peer(), b.peer(), &quiet_limits());
    tokio::spawn(links::run(Arc::clone(&a.links), a.shop.clone(), left));
    tokio::spawn(links::run(Arc::clone(&b.links), b.shop.clone(), right));
}

fn quiet_limits() -> transport::Limits {
    transport::Limits { beat_interval: None, silence_max: None, ..transport::Limits::default() }
}

/// The simulator, from outside.
pub(super) struct Provider {
    base_url: String,
    pub(super) plain: reqwest::Client,
}

impl Provider {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(simulator::serve(SimulatorConfig::default(), listener, std::future::pending()));
        let plain = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        Self { base_url, plain }
    }

    /// A provider whose address nobody listens on.
    pub(super) async fn nowhere() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let plain = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        Self { base_url, plain }
    }

    pub(super) async fn behave(&self, behaviour: Behaviour) {
        let url = format!("{}/simulator/behaviour", self.base_url);
        let order = json!({ "behaviour": behaviour });
        assert_eq!(self.plain.post(url).json(&order).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    }

    /// One of the simulator's own calls that answers in JSON.
    pub(super) async fn order(&self, path: &str, order: &Value) -> Value {
        let url = format!("{}{path}", self.base_url);
        self.plain.post(url).json(order).send().await.unwrap().json().await.unwrap()
    }

    pub(super) async fn charged(&self) -> Vec<LedgerLine> {
        let url = format!("{}/simulator/ledger", self.base_url);
        self.plain.get(url).send().await.unwrap().json().await.unwrap()
    }

    pub(super) async fn counts(&self) -> Counts {
        let url = format!("{}/simulator/counts", self.base_url);
        self.plain.get(url).send().await.unwrap().json().await.unwrap()
    }

    /// Asks for the counts until they satisfy `enough`.
    pub(super) async fn until(&self, enough: impl Fn(&Counts) -> bool) {
        let wait = async { while !enough(&self.counts().await) {} };
        patiently("the simulator", wait).await;
    }

    pub(super) fn config(&self) -> RelayConfig {
        let text = SimulatorConfig::default().credentials_toml(&self.base_url, "http://127.0.0.1:0");
        RelayConfig {
            mpesa: Some(MpesaConfig::from_toml(&text).unwrap()),
            callbacks: Some("127.0.0.1:0".parse().unwrap()),
            claim_quiet: Duration::ZERO,
            stop_grace: Duration::from_millis(200),
            ..RelayConfig::default()
        }
    }

    /// As [`Self::config`], with a client that gives up on an answer soon.
    pub(super) fn impatient(&self) -> RelayConfig {
        let mut config = self.config();
        if let Some(mpesa) = &mut config.mpesa {
            (mpesa.timeout_ms, mpesa.connect_timeout_ms) = (400, 300);
        }
        config
    }

    /// Calls the relay back by hand.
    pub(super) async fn call_back(&self, relay: &Relay, path: &str, body: Vec<u8>) -> StatusCode {
        let url = format!("http://{}{path}", relay.callbacks().unwrap());
        self.plain.post(url).body(body).send().await.unwrap().status()
    }
}

/// The path that the provider was given for attempt `number`.
pub(super) fn path(identity: &Identity, intent: RecordId, number: u32) -> String {
    let token = callback_token(&super::super::token_key(identity), intent.0, number);
    callback_path(intent.0, number, &token)
}

/// A callback's body.
pub(super) fn callback(checkout_id: &str, code: i64, paid: Option<(&str, i64)>) -> Vec<u8> {
    let mut inside = json!({
        "MerchantRequestID": "by-hand", "CheckoutRequestID": checkout_id, "ResultCode": code, "ResultDesc": "by hand",
    });
    if let Some((receipt, amount_minor)) = paid {
        let item = |name: &str, value: Value| json!({ "Name": name, "Value": value });
        let amount = item("Amount", json!(amount_minor / 100));
        inside["CallbackMetadata"] = json!({ "Item": [amount, item("MpesaReceiptNumber", json!(receipt))] });
    }
    serde_json::to_vec(&json!({ "Body": { "stkCallback": inside } })).unwrap()
}

/// A relay that pays, and everything around it.
pub(super) struct Rig {
    pub(super) disk: MemoryDisk,
    pub(super) device: Device,
    pub(super) provider: Provider,
    pub(super) relay: Relay,
}

impl Rig {
    pub(super) async fn start() -> Self {
        let provider = Provider::start().await;
        let config = provider.config();
        Self::start_with(provider, config, Currency::KES).await
    }

    pub(super) async fn start_with(provider: Provider, config: RelayConfig, currency: Currency) -> Self {
        let disk = MemoryDisk::new();
        let device = Device::start(&disk, identity(1, Role::Relay, currency), false);
        let relay = paying(&device, config).await;
        Self { disk, device, provider, relay }
    }

    /// Pulls the plug on the whole process and starts it again on the same disk.
    pub(super) async fn crash(self, begin_epoch: bool) -> Self {
        let Self { disk, device, provider, relay } = self;
        drop(relay);
        let device = Device::start(&disk, device.identity, begin_epoch);
        let relay = Relay::start(device.shop.clone(), &device.identity, provider.config()).await.unwrap();
        Self { disk, device, provider, relay }
    }

    pub(super) async fn status(&self, what: &str, is: impl FnMut(&RelayStatus) -> bool) -> RelayStatus {
        status(&self.relay, what, is).await
    }

    pub(super) fn attempts(&self, intent: RecordId) -> Vec<Attempt> {
        attempts(&self.device.shop, intent).unwrap()
    }

    pub(super) fn states(&self, intent: RecordId) -> Vec<AttemptState> {
        self.attempts(intent).iter().map(Attempt::state).collect()
    }
}

pub(super) async fn status(relay: &Relay, what: &str, is: impl FnMut(&RelayStatus) -> bool) -> RelayStatus {
    patiently(what, async { relay.watch().wait_for(is).await.unwrap().clone() }).await
}

/// Starts a relay and waits until it pays.
pub(super) async fn paying(device: &Device, config: RelayConfig) -> Relay {
    let relay = Relay::start(device.shop.clone(), &device.identity, config).await.unwrap();
    status(&relay, "its claim", |status| status.standing == super::super::Standing::Paying).await;
    relay
}

/// A clock that a test sets.
pub(super) fn set_clock() -> (Arc<AtomicU64>, Clock) {
    let at = Arc::new(AtomicU64::new(0));
    let read = Arc::clone(&at);
    (at, Arc::new(move || Timestamp(read.load(Ordering::SeqCst))))
}
