//! Delivery to a shop's own server on this machine, and the status of a long queue.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::{Json, Router};
use crdt_model::document::FieldValue;
use crdt_model::record::{Custom, Fact, Source};
use crdt_model::shop::{Operation, QueueConfig};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::floors::RawDisk;
use super::http::Client;
use super::{Figure, large, median, world};
use crate::node::{Node, NodeConfig};
use crate::upstream::UpstreamConfig;

const OPERATIONS: usize = 100;
const CALLS_AT_ONCE: usize = 4;
const IN_TURN: usize = 300;

/// A hundred operations, from the word to send them until the last is known to be there. The floor:
/// the same hundred requests by a plain client, as many at once.
pub(super) async fn hundred(at: &Path) -> anyhow::Result<Figure> {
    let address = server().await?;
    let folder = world::till(at, "delivery")?;
    let mut config = NodeConfig::new(&folder);
    config.upstream = Some(upstream(address)?);
    let node = Node::start(config).await?;
    let off = QueueConfig::edit("auto_sync_enabled", Some(FieldValue::Bool(false)));
    node.shop().record(Operation { edits: vec![off], ..Operation::default() }).await?;
    for number in 0..OPERATIONS {
        let operation = Operation { facts: vec![operation(number)], ..Operation::default() };
        node.shop().record(operation).await?;
    }
    let floor = plain(address).await?;
    let carrier = node.queue().desk().carrier().ok_or_else(|| anyhow::anyhow!("nobody carries"))?;
    let begun = Instant::now();
    let summary = carrier.sync(None).await.ok_or_else(|| anyhow::anyhow!("the carrier has stopped"))?;
    let spent = begun.elapsed().as_secs_f64() * 1e3;
    anyhow::ensure!(summary.success == OPERATIONS as u64, "only {} were delivered", summary.success);
    node.stop().await.map_err(anyhow::Error::msg)?;
    Ok(Figure::at_most("upstream_100", spent, "ms", Some(floor), 5_000.0))
}

/// The status of 100,000 operations that wait for a server which is away.
pub(super) async fn status(at: &Path) -> anyhow::Result<Figure> {
    let spent = ask_large(at, "/api/offline/status", 1_000).await?;
    Ok(Figure::at_most("queue_status_100000", median(spent), "ms", None, 1.0))
}

/// A page of them. The floor: the API's cheapest answer.
pub(super) async fn query(at: &Path) -> anyhow::Result<Figure> {
    let floors = ask_large(at, "/healthz", 200).await?;
    let spent = ask_large(at, "/api/offline/pending?limit=50", 200).await?;
    Ok(Figure::at_most("queue_query_100000", median(spent), "ms", Some(median(floors)), 10.0))
}

async fn ask_large(at: &Path, path: &'static str, times: usize) -> anyhow::Result<Vec<f64>> {
    let mut config = NodeConfig::new(large::large_till(at).await?);
    config.api = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    // Nobody listens there. The sales were made before this till carried its own, so they are listed
    // as the relay's to carry.
    config.upstream = Some(upstream(SocketAddr::from(([127, 0, 0, 1], 9)))?);
    let node = Node::start(config).await?;
    let api = node.api().ok_or_else(|| anyhow::anyhow!("no API"))?;
    let asked = tokio::task::spawn_blocking(move || -> anyhow::Result<Vec<f64>> {
        let mut client = Client::connect(api)?;
        let mut spent = Vec::new();
        for _ in 0..times {
            let begun = Instant::now();
            let status = client.read(path)?;
            anyhow::ensure!(status == 200, "{path} was answered {status}");
            spent.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        Ok(spent)
    });
    let spent = asked.await??;
    node.stop().await.map_err(anyhow::Error::msg)?;
    Ok(spent)
}

/// Operations queued in turn. The floor: what makes one durable.
pub(super) async fn queue_one(at: &Path) -> anyhow::Result<Figure> {
    let (node, api) = with_api(at, "queue-one", SocketAddr::from(([127, 0, 0, 1], 9))).await?;
    let mut disk = RawDisk::new(at)?;
    let asked = tokio::task::spawn_blocking(move || -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
        let mut client = Client::connect(api)?;
        let (mut spent, mut floors) = (Vec::new(), Vec::new());
        for number in 0..IN_TURN {
            let body = queue_json(number);
            let begun = Instant::now();
            let status = client.post("/api/offline/queue", &body)?;
            spent.push(begun.elapsed().as_secs_f64() * 1e3);
            anyhow::ensure!(status == 202, "an operation was answered {status}");
            floors.push(disk.once_us()? / 1e3);
        }
        Ok((spent, floors))
    });
    let (spent, floors) = asked.await??;
    node.stop().await.map_err(anyhow::Error::msg)?;
    Ok(Figure::at_most("queue_operation_p50", median(spent), "ms", Some(median(floors)), 5.0))
}

/// Operations sent one by one, as they are asked for. The floor: the same request by a plain client.
pub(super) async fn sync_one(at: &Path) -> anyhow::Result<Figure> {
    let server = server().await?;
    let (node, api) = with_api(at, "sync-one", server).await?;
    let asked = tokio::task::spawn_blocking(move || -> anyhow::Result<Vec<f64>> {
        let mut client = Client::connect(api)?;
        let mut spent = Vec::new();
        for number in 0..IN_TURN {
            anyhow::ensure!(client.post("/api/offline/queue", &queue_json(number))? == 202, "not queued");
            let path = format!("/api/offline/sync/{number}-visit");
            let begun = Instant::now();
            let status = client.post(&path, "{}")?;
            spent.push(begun.elapsed().as_secs_f64() * 1e3);
            anyhow::ensure!(status == 200, "a sync was answered {status}");
        }
        Ok(spent)
    });
    let spent = asked.await??;
    let plain = tokio::task::spawn_blocking(move || -> anyhow::Result<Vec<f64>> {
        let mut client = Client::connect(server)?;
        let mut floors = Vec::new();
        for number in 0..IN_TURN {
            let begun = Instant::now();
            client.post("/api/visits", &body(number).to_string())?;
            floors.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        Ok(floors)
    });
    let floors = plain.await??;
    let synced = node.queue().status().await?.of(crate::queue::QueueStatus::Synced);
    anyhow::ensure!(synced == IN_TURN as u64, "only {synced} were delivered");
    node.stop().await.map_err(anyhow::Error::msg)?;
    Ok(Figure::at_most("sync_single_p50", median(spent), "ms", Some(median(floors)), 300.0))
}

/// A node that sends what it is told to, and nothing by itself.
async fn with_api(at: &Path, name: &str, server: SocketAddr) -> anyhow::Result<(Node, SocketAddr)> {
    let mut config = NodeConfig::new(world::till(at, name)?);
    config.api = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    config.upstream = Some(upstream(server)?);
    let node = Node::start(config).await?;
    let off = [("auto_sync_enabled", 0), ("max_queue_size", 1_000_000)];
    let value = |(name, number): (&str, i64)| {
        let value = if number == 0 { FieldValue::Bool(false) } else { FieldValue::Int(number) };
        (name.to_owned(), Some(value))
    };
    node.queue().update_config(off.into_iter().map(value).collect()).await?;
    let api = node.api().ok_or_else(|| anyhow::anyhow!("no API"))?;
    Ok((node, api))
}

fn queue_json(number: usize) -> String {
    json!({
        "operation_id": format!("{number}-visit"), "operation_type": "visit", "method": "POST",
        "endpoint": "/api/visits", "request_body": body(number),
    })
    .to_string()
}

pub(super) fn upstream(address: SocketAddr) -> anyhow::Result<UpstreamConfig> {
    let mut config = UpstreamConfig::new(format!("http://{address}").parse()?);
    config.allow_loopback = true;
    config.calls_max = CALLS_AT_ONCE;
    Ok(config)
}

fn operation(number: usize) -> Fact {
    Fact::Custom(Custom {
        source: Some(Source { instance: "bench".to_owned(), key: number.to_string() }),
        operation_type: "visit".to_owned(),
        method: "POST".to_owned(),
        path: "/api/visits".to_owned(),
        body: body(number).to_string(),
        ..Custom::default()
    })
}

fn body(number: usize) -> serde_json::Value {
    json!({ "shop": "Kiosk", "number": number, "note": "a few words about what was seen there" })
}

/// A server that takes everything; it ends with the process.
async fn server() -> anyhow::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let router = Router::new().fallback(|| async { (StatusCode::CREATED, Json(json!({ "id": "s-1" }))) });
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

async fn plain(address: SocketAddr) -> anyhow::Result<f64> {
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(Duration::from_secs(5)).build()?;
    let begun = Instant::now();
    stream::iter(0..OPERATIONS)
        .map(|number| client.post(format!("http://{address}/api/visits")).json(&body(number)).send())
        .buffer_unordered(CALLS_AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}
