//! A till in one process: a real shop loop over storage in memory, and its router.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::operations::MoveWords;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use crdt_model::ids::{BusinessId, DeviceId, OwnerKey, RecordId};
use crdt_model::money::Currency;
use crdt_model::record::{Certificate, Genesis, HandoffDecided, LedgerMoved, Role};
use crdt_model::shop::Identity;
use crdt_model::time::Timestamp;
use ed25519_dalek::SigningKey;
use futures::future::{BoxFuture, FutureExt};
use serde_json::Value;
use tokio::sync::broadcast;
use tower::ServiceExt;
use transport::PeerKey;

use crate::api::{ApiState, ControlError, NodeControl, router};
use crate::links::{self, LinkTable};
use crate::shop_handle::ShopHandle;
use crate::shop_loop::ShopLoop;
use crate::storage::MemoryDisk;

pub(super) const HOST: &str = "127.0.0.1:7470";

/// A till, or a relay.
pub(super) struct Till {
    pub(super) shop: ShopHandle,
    pub(super) device: DeviceId,
    links: Arc<LinkTable>,
    router: Router,
}

/// What the node would do.
#[derive(Debug)]
struct Control {
    owner: bool,
}

/// An answer, read.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) headers: axum::http::HeaderMap,
    pub(super) bytes: Vec<u8>,
}

fn owner_key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

static LINKS: AtomicU64 = AtomicU64::new(1);

impl NodeControl for Control {
    fn addresses(&self) -> Vec<String> {
        vec!["/ip4/127.0.0.1/tcp/1".to_owned()]
    }

    fn invite(&self, role: Role) -> BoxFuture<'_, Result<String, ControlError>> {
        let answer = match self.owner {
            true => Ok(format!("TILLMESH1{role:?}")),
            false => Err(ControlError::NotAnOwner("invite on the owner's device".to_owned())),
        };
        async move { answer }.boxed()
    }

    fn has_owner_key(&self) -> bool {
        self.owner
    }

    fn decide_handoff(
        &self,
        handoff: RecordId,
        to: DeviceId,
        note: Option<String>,
    ) -> Result<HandoffDecided, ControlError> {
        match self.owner {
            true => Ok(HandoffDecided::sign(handoff, to, note, &owner_key())),
            false => Err(ControlError::NotAnOwner("decide on the owner's device".to_owned())),
        }
    }

    fn sign_move(&self, business: BusinessId, words: MoveWords) -> Result<LedgerMoved, ControlError> {
        let MoveWords { from, to, intent, old_is_gone } = words;
        match self.owner {
            true => Ok(LedgerMoved::sign(business, from, to, intent, old_is_gone, &owner_key())),
            false => Err(ControlError::NotAnOwner("move payments on the owner's device".to_owned())),
        }
    }

    fn moved(&self, _: crdt_model::shop::LinkId) -> Option<crate::api::Moved> {
        None
    }

    fn trouble(&self) -> Option<String> {
        (!self.owner).then(|| "this node has no network".to_owned())
    }
}

impl Till {
    pub(super) fn new() -> Self {
        Self::of(1, Role::Till, Currency::KES)
    }

    pub(super) fn of(number: u8, role: Role, currency: Currency) -> Self {
        let owner = owner_key();
        let owned_by = OwnerKey(owner.verifying_key().to_bytes());
        let genesis = Genesis {
            name: "Duka".to_owned(),
            currency,
            founded: Timestamp(1_700_000_000_000),
            owners: vec![owned_by],
            recovery: owned_by,
            utc_offset_minutes: 180,
            nonce: [1; 16],
        };
        let key = SigningKey::from_bytes(&[number; 32]);
        let device = DeviceId(key.verifying_key().to_bytes());
        let name = format!("till {number}");
        let certificate = Certificate::sign(genesis.business(), device, name, role, Timestamp(1), &owner);
        let identity = Identity { genesis, certificate, key, entropy: [number; 32], carries_own: false };

        let storage = MemoryDisk::new().open();
        let changes = broadcast::Sender::new(256);
        let links = Arc::new(LinkTable::default());
        let shop_loop = ShopLoop::open(Box::new(storage), identity, true, Arc::clone(&links), changes, None).unwrap();
        let (shop, attendant) = ShopHandle::open(shop_loop);
        tokio::spawn(attendant.run());
        let state = ApiState::new(shop.clone(), Arc::new(Control { owner: number == 1 }))
            .with_hosts(vec!["till.shop.example".to_owned()]);
        Self { shop, device, links, router: router(state) }
    }

    /// Stops the node, as a failed disk would.
    pub(super) async fn stop(&self) {
        self.shop.close().await.unwrap();
        while self.shop.ask(|_| ()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    /// Links two tills until one of them goes.
    pub(super) fn meet(&self, other: &Self) {
        let (a, b) = transport::memory_pair(PeerKey(self.device.0), PeerKey(other.device.0));
        for (till, mut end) in [(self, a), (other, b)] {
            end.id = transport::LinkId(LINKS.fetch_add(1, Ordering::Relaxed));
            tokio::spawn(links::run(Arc::clone(&till.links), till.shop.clone(), end));
        }
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(super) async fn call(&self, request: Request<Body>) -> Answered {
        let response = self.send(request).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec();
        Answered { status, headers, bytes }
    }

    pub(super) async fn get(&self, path: &str) -> Answered {
        self.call(request("GET", path, "")).await
    }

    /// A body that is found.
    pub(super) async fn found(&self, path: &str) -> Value {
        let answered = self.get(path).await;
        assert_eq!(answered.status, 200, "GET {path}: {}", answered.text());
        answered.json()
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Answered {
        self.call(request("POST", path, &body.to_string())).await
    }

    pub(super) async fn patch(&self, path: &str, body: &Value) -> Answered {
        self.call(request("PATCH", path, &body.to_string())).await
    }

    /// Records something and gives the record's id.
    pub(super) async fn record(&self, path: &str, body: &Value) -> String {
        let answered = self.post(path, body).await;
        assert!(answered.status.is_success(), "POST {path} {body}: {}", answered.text());
        answered.json()["id"].as_str().unwrap().to_owned()
    }

    /// Waits for hints until a question has an answer.
    pub(super) async fn until<T: Send + 'static>(
        &self,
        question: impl Fn(&crdt_model::shop::Shop) -> Option<T> + Clone + Send + 'static,
    ) -> T {
        let mut changes = self.shop.changes();
        loop {
            let question = question.clone();
            if let Some(answer) = self.shop.ask(move |shop| question(shop)).await.unwrap() {
                return answer;
            }
            // A relay's word comes without a hint.
            drop(tokio::time::timeout(std::time::Duration::from_millis(10), changes.recv()).await);
        }
    }
}

impl Answered {
    pub(super) fn text(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.bytes))
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The code and field of a problem document, which this must be.
    pub(super) fn problem(&self) -> (String, Option<String>) {
        let problem = self.json();
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{}", self.text());
        assert_eq!(problem["status"], self.status.as_u16());
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        (problem["code"].as_str().unwrap().to_owned(), problem["field"].as_str().map(str::to_owned))
    }
}

pub(super) fn request(method: &str, path: &str, body: &str) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path).header(header::HOST, HOST);
    let builder = builder.header(header::CONTENT_TYPE, "application/json");
    builder.body(Body::from(body.to_owned())).unwrap()
}

/// A sale of bread for 130.00, in cash.
pub(super) fn bread() -> Value {
    serde_json::json!({
        "lines": [{ "sku": "BREAD", "quantity_milli": 2000, "unit_price_minor": 6500 }],
        "currency": "KES",
        "tenders": [{ "kind": "cash", "amount_minor": 13_000 }],
    })
}
