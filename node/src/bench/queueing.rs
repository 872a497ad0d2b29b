//! What it costs that a shop has a server of its own, while that is away: processor time an
//! operation, and memory for a hundred thousand of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crdt_model::document::FieldValue;

use super::sync::process_cpu_ms;
use super::{Figure, delivery, median, world};
use crate::lab::{ChildNode, Launch};
use crate::node::{Node, NodeConfig};
use crate::queue::QueueStatus;

const SALES: u64 = 4_000;
const ROUNDS: u64 = 5;
const QUEUED: u64 = 100_000;

/// Nobody listens there.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

/// Processor time of recording and queueing a sale. The floor: of recording it where there is no
/// server. Both in turn, so that they see the same machine.
pub(super) async fn cpu(at: &Path) -> anyhow::Result<Figure> {
    let plain = Node::start(NodeConfig::new(world::till(at, "unqueued")?)).await?;
    let mut config = NodeConfig::new(world::till(at, "queued")?);
    config.upstream = Some(delivery::upstream(NOWHERE)?);
    let queueing = Node::start(config).await?;
    let off = [("auto_sync_enabled".to_owned(), Some(FieldValue::Bool(false)))];
    queueing.queue().update_config(off.into_iter().collect()).await?;
    let (mut spent, mut floors) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (from, to) = (round * SALES, (round + 1) * SALES);
        let begun = process_cpu_ms();
        world::sell(&plain, from, to).await?;
        floors.push(an_operation_us(process_cpu_ms() - begun));
        let begun = process_cpu_ms();
        world::sell(&queueing, from, to).await?;
        let status = queueing.queue().status().await?;
        spent.push(an_operation_us(process_cpu_ms() - begun));
        anyhow::ensure!(status.of(QueueStatus::Pending) == to, "not everything is queued");
    }
    plain.stop().await.map_err(anyhow::Error::msg)?;
    queueing.stop().await.map_err(anyhow::Error::msg)?;
    Ok(Figure::at_most_times("queueing_cpu", median(spent), "µs", median(floors), 3.0))
}

fn an_operation_us(ms: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a count of sales is small")]
    let sales = SALES as f64;
    ms * 1e3 / sales
}

/// Memory of a till whose own 100,000 sales wait for a server that is away. The floor: of the same
/// till without one.
pub(super) async fn memory(at: &Path) -> anyhow::Result<Figure> {
    let folder = queued_till(at).await?;
    let file = at.join("nowhere.toml");
    std::fs::write(&file, format!("base_url = 'http://{NOWHERE}'\nallow_loopback = true\n"))?;
    let floor = resident_mb(Launch::till(&folder)).await?;
    let mut launch = Launch::till(&folder);
    launch.more.extend(["--upstream".into(), file.into()]);
    let held = resident_mb(launch).await?;
    Ok(Figure::at_most("queue_100000_memory", held, "MB", Some(floor), 160.0))
}

/// A till that carries what it sells itself.
async fn queued_till(at: &Path) -> anyhow::Result<PathBuf> {
    let folder = world::till(at, "queued-till")?;
    let mut config = NodeConfig::new(&folder);
    config.upstream = Some(delivery::upstream(NOWHERE)?);
    let node = Node::start(config).await?;
    world::sell(&node, 0, QUEUED).await?;
    let pending = node.queue().status().await?.of(QueueStatus::Pending);
    node.stop().await.map_err(anyhow::Error::msg)?;
    anyhow::ensure!(pending + 8 >= QUEUED, "only {pending} are queued");
    Ok(folder)
}

async fn resident_mb(launch: Launch) -> anyhow::Result<f64> {
    let node = ChildNode::start(&launch).await?;
    let api = node.api;
    // It has answered something, as a till in use has.
    tokio::task::spawn_blocking(move || {
        let mut client = super::http::Client::connect(api)?;
        client.read("/api/offline/status")?;
        client.read("/api/sales?limit=200")
    })
    .await??;
    #[expect(clippy::cast_precision_loss, reason = "a process's memory is far below 2^53 bytes")]
    let bytes = node.resident_bytes()? as f64;
    Ok(bytes / 1e6)
}
