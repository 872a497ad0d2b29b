//! A till and a phone whose app carries the fragments itself, as a phone does with its own
//! Bluetooth: two processes, and between them a wire that loses some. The phone is this very test
//! in another process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::cast_possible_wrap)]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use crdt_model::money::Currency;
use crdt_model::record::{Kind, Line, Role, TenderKind};
use futures::future::BoxFuture;
use tillmesh_node::folder;
use tillmesh_node::join::{JoinConfig, join};
use tillmesh_node::node::{Node, NodeConfig};
use tillmesh_node::operations::{self, NewSale, NewTender};
use tillmesh_node::shop_loop::now;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use transport::bluetooth::{Carrier, CarrierError, FragmentSink, INCOMING_FRAGMENTS_MAX};

const TEST: &str = "an_app_carries_the_fragments_of_its_phone";
/// Where the phone's records are, and where the till's end of the wire is.
const PHONE_FOLDER: &str = "TILLMESH_TEST_PHONE_FOLDER";
const WIRE: &str = "TILLMESH_TEST_WIRE";
const PATIENCE: Duration = Duration::from_secs(60);
const SALES: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_carries_the_fragments_of_its_phone() {
    match std::env::var_os(PHONE_FOLDER) {
        Some(phone) => be_the_phone(Path::new(&phone)).await,
        None => be_the_till().await,
    }
}

async fn be_the_till() {
    let at = tempfile::tempdir().unwrap();
    let (till_folder, phone_folder) = (at.path().join("till"), at.path().join("phone"));
    folder::found(&till_folder, "Duka", Currency::KES, 180, "till", now()).unwrap();
    admit(&till_folder, &phone_folder).await;
    let till = Node::start(NodeConfig::new(&till_folder)).await.unwrap();
    for n in 0..SALES {
        sell(&till, n).await;
    }

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wire = listener.local_addr().unwrap().to_string();
    let phone = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(PHONE_FOLDER, &phone_folder)
        .env(WIRE, wire)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    till.link_over(carrier(stream), false, "a phone").await.unwrap();
    until_sales(&till, SALES + 1).await;
    let phone = tokio::time::timeout(PATIENCE, phone.wait_with_output()).await.unwrap().unwrap();
    let (told, failed) = (String::from_utf8_lossy(&phone.stdout), String::from_utf8_lossy(&phone.stderr));
    assert!(phone.status.success(), "{told}\n{failed}");
    till.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_lets_go_of_what_the_app_carries() {
    let at = tempfile::tempdir().unwrap();
    let (till_folder, phone_folder) = (at.path().join("till"), at.path().join("phone"));
    folder::found(&till_folder, "Duka", Currency::KES, 180, "till", now()).unwrap();
    admit(&till_folder, &phone_folder).await;
    let till = Node::start(NodeConfig::new(&till_folder)).await.unwrap();
    let phone = Node::start(NodeConfig::new(&phone_folder)).await.unwrap();
    sell(&till, 1).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (held, let_go) = tokio::sync::oneshot::channel::<()>();
    let near = carrier(near.unwrap());
    let near = Carrier { outgoing: Box::new(Held { carrier: near.outgoing, _held: held }), ..near };
    let far = carrier(far.unwrap().0);
    let (here, there) = tokio::join!(till.link_over(near, true, "a phone"), phone.link_over(far, false, "a till"));
    here.unwrap();
    there.unwrap();
    until_sales(&phone, 1).await;
    till.stop().await.unwrap();
    let gone = tokio::time::timeout(PATIENCE, let_go).await.expect("the carrier is still held");
    assert!(gone.is_err(), "nobody sends anything");
    phone.stop().await.unwrap();
}

/// Tells when it is dropped.
struct Held {
    carrier: Box<dyn FragmentSink>,
    _held: tokio::sync::oneshot::Sender<()>,
}

impl FragmentSink for Held {
    fn send(&mut self, fragment: Bytes) -> BoxFuture<'_, Result<(), CarrierError>> {
        self.carrier.send(fragment)
    }
}

/// Takes everything the till has sold, and has a sale of its own.
async fn be_the_phone(folder: &Path) {
    let phone = Node::start(NodeConfig::new(folder)).await.unwrap();
    let stream = TcpStream::connect(std::env::var(WIRE).unwrap()).await.unwrap();
    phone.link_over(carrier(stream), true, "a till").await.unwrap();
    until_sales(&phone, SALES).await;
    sell(&phone, 7).await;
    // Until the till has it, and says so.
    let told = async {
        while phone.shop().ask(|shop| shop.peers().iter().any(|peer| peer.lacks > 0)).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    phone.stop().await.unwrap();
}

async fn admit(till_folder: &PathBuf, phone_folder: &Path) {
    let listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    let till = Node::start(NodeConfig { listen, ..NodeConfig::new(till_folder) }).await.unwrap();
    let invitation = till.invite(Role::Till).await.unwrap();
    let config = JoinConfig { name: "phone".to_owned(), peers: Vec::new(), mdns: false };
    join(phone_folder, &invitation, config).await.unwrap();
    till.stop().await.unwrap();
}

async fn sell(node: &Node, n: usize) {
    let amount = 100 + n as i64;
    let line = Line {
        sku: format!("SKU{}", n % 9),
        quantity_milli: 1000,
        unit_price_minor: amount,
        discount_minor: 0,
        tax_rate_bp: None,
    };
    let new = NewSale {
        source: None,
        occurred: None,
        currency: Currency::KES,
        lines: vec![line],
        tenders: vec![NewTender { kind: TenderKind::Cash, amount_minor: amount, phone: None }],
        customer: None,
        note: None,
        ticket: None,
    };
    let planned = operations::sale(node.shop(), new).await.unwrap();
    node.shop().record(planned.operation).await.unwrap();
}

async fn until_sales(node: &Node, wanted: usize) {
    let mut changes = node.shop().changes();
    let seen = async {
        while node.shop().ask(|shop| shop.books().count_of(Kind::Sale)).await.unwrap() < wanted {
            // One that was missed is as good a hint as one that was not.
            drop(changes.recv().await);
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("the sales did not arrive");
}

/// Fragments on a stream, each after its length. Every eleventh is lost.
fn carrier(stream: TcpStream) -> Carrier {
    let (mut reading, writing) = stream.into_split();
    let (arrived, incoming) = mpsc::channel(INCOMING_FRAGMENTS_MAX);
    tokio::spawn(async move {
        while let Ok(bytes) = reading.read_u16().await {
            let mut fragment = vec![0; usize::from(bytes)];
            if reading.read_exact(&mut fragment).await.is_err() || arrived.send(fragment.into()).await.is_err() {
                return;
            }
        }
    });
    Carrier { fragment_bytes_max: 182, outgoing: Box::new(Wire { writing, sent: 0 }), incoming }
}

struct Wire {
    writing: OwnedWriteHalf,
    sent: usize,
}

impl FragmentSink for Wire {
    fn send(&mut self, fragment: Bytes) -> BoxFuture<'_, Result<(), CarrierError>> {
        Box::pin(async move {
            self.sent += 1;
            if self.sent.is_multiple_of(11) {
                return Ok(());
            }
            let length = u16::try_from(fragment.len()).unwrap().to_be_bytes();
            let whole = [&length[..], &fragment].concat();
            self.writing.write_all(&whole).await.map_err(|error| CarrierError(error.to_string()))
        })
    }
}
