//! Delivery to a shop's own server on this machine, and the status of a long queue.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::{Json, Router};
use crdt_model::record::{Custom, Fact, Source};
use crdt_model::shop::{Operation, QueueConfig};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::http::Client;
use super::{Figure, large, median, world};
use crate::node::{Node, NodeConfig};
use crate::upstream::UpstreamConfig;

const OPERATIONS: usize = 100;
const CALLS_AT_ONCE: usize = 4;

/// A hundred operations, from the word to send them until the last is known to be there. The floor:
/// the same hundred requests by a plain client, as many at once.
pub(super) async fn hundred(at: &Path) -> anyhow::Result<Figure> {
    let address = server().await?;
    let folder = world::till(at, "delivery")?;
    let mut config = NodeConfig::new(&folder);
    config.upstream = Some(upstream(address)?);
    let node = Node::start(config).await?;
    let off = QueueConfig::edit("auto_sync_enabled", Some(crdt_model::document::FieldValue::Bool(false)));
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
        for _ in 0..1_000 {
            let begun = Instant::now();
            let status = client.read("/api/offline/status")?;
            anyhow::ensure!(status == 200, "the status was answered {status}");
            spent.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        Ok(spent)
    });
    let spent = asked.await??;
    node.stop().await.map_err(anyhow::Error::msg)?;
    Ok(Figure::at_most("queue_status_100000", median(spent), "ms", None, 1.0))
}

fn upstream(address: SocketAddr) -> anyhow::Result<UpstreamConfig> {
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
