//! How long a payment provider waits until its callback is taken.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use crdt_model::ids::RecordId;
use crdt_model::money::{Currency, Money};
use crdt_model::record::{Fact, Intent, Role, Source};
use crdt_model::shop::{Operation, Phone};

use super::floors::RawDisk;
use super::http::Client;
use super::{Figure, world};
use crate::folder;
use crate::node::{Node, NodeConfig};
use crate::payments::MpesaConfig;
use crate::payments::simulator::SimulatorConfig;
use crate::relay::{Relay, RelayConfig, callback_path_of};

const WARM_UP: usize = 100;
const CALLBACKS: usize = 2_000;

/// From sending a callback to its 200, which means that it is durable; each is a payment of its
/// own, which the engine books meanwhile.
pub(super) async fn ack_p99(at: &Path) -> anyhow::Result<Figure> {
    let folder = world::Pair::found_as(at, "webhook", Role::Relay)?.second;
    let opened = folder::open(&folder, None)?;
    let identity = opened.identity.clone();
    let node = Node::start_opened(NodeConfig::new(&folder), opened).await?;
    // Nobody answers there: only callbacks are measured.
    let credentials = SimulatorConfig::default().credentials_toml("http://127.0.0.1:9", "http://127.0.0.1:0");
    let config = RelayConfig {
        mpesa: Some(MpesaConfig::from_toml(&credentials)?),
        callbacks: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        ..RelayConfig::default()
    };
    let mut paths = Vec::new();
    for number in 0..WARM_UP + CALLBACKS {
        let intent = promise(&node, number).await?;
        paths.push(callback_path_of(&identity, intent, 1));
    }
    let relay = Relay::start(node.shop().clone(), &identity, config).await?;
    let address = relay.callbacks().ok_or_else(|| anyhow::anyhow!("callbacks are not taken"))?;
    let disk = RawDisk::new(at)?;
    let (acks, floors) = tokio::task::spawn_blocking(move || call_back(address, &paths, disk)).await??;
    relay.stop().await;
    node.stop().await.map_err(anyhow::Error::msg)?;
    Ok(Figure::at_most_times("webhook_ack_p99", p99(acks), "µs", p99(floors), 2.0))
}

async fn promise(node: &Node, number: usize) -> anyhow::Result<RecordId> {
    let intent = Intent {
        source: Some(Source { instance: "bench".to_owned(), key: number.to_string() }),
        sale: None,
        amount: Money::new(6_500, Currency::KES),
        provider: "mpesa".to_owned(),
        ledger: None,
    };
    let phones = vec![Phone { fact: 0, tender: 0, number: "254712345678".to_owned() }];
    let operation = Operation { facts: vec![Fact::Intent(intent)], phones, ..Operation::default() };
    let acted = node.shop().record(operation).await?;
    acted.records.first().copied().ok_or_else(|| anyhow::anyhow!("no payment was recorded"))
}

/// Callbacks and raw writes in turn, so that both see the same machine.
fn call_back(address: SocketAddr, paths: &[String], mut disk: RawDisk) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let mut client = Client::connect(address)?;
    let (mut acks, mut floors) = (Vec::new(), Vec::new());
    for (number, path) in paths.iter().enumerate() {
        let body = body(number);
        let started = Instant::now();
        let status = client.post(path, &body)?;
        let spent = started.elapsed().as_secs_f64() * 1e6;
        anyhow::ensure!(status == 200, "a callback was answered {status}");
        let floor = disk.once_us()?;
        if number >= WARM_UP {
            acks.push(spent);
            floors.push(floor);
        }
    }
    Ok((acks, floors))
}

fn body(number: usize) -> String {
    serde_json::json!({ "Body": { "stkCallback": {
        "MerchantRequestID": format!("bench-{number}"),
        "CheckoutRequestID": format!("ws_CO_BENCH{number}"),
        "ResultCode": 0,
        "ResultDesc": "The service request is processed successfully.",
        "CallbackMetadata": { "Item": [
            { "Name": "Amount", "Value": 65.0 },
            { "Name": "MpesaReceiptNumber", "Value": format!("TEST{number:012}") },
            { "Name": "TransactionDate", "Value": 20_250_101_120_000_u64 },
            { "Name": "PhoneNumber", "Value": 254_712_345_678_u64 },
        ] },
    } } })
    .to_string()
}

/// The value that one in a hundred exceeds.
fn p99(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() * 99 / 100).copied().unwrap_or_default()
}
