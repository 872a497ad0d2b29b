//! Sales between devices.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use crdt_model::ids::DeviceId;
use crdt_model::record::Kind;
use crdt_model::shop::Change;
use tokio::sync::{broadcast, mpsc};

use super::floors::{self, RawDisk};
use super::http::Client;
use super::world::{self, Pair};
use super::{Figure, median};
use crate::lab::{ChildNode, Launch, Wire};
use crate::links;
use crate::node::{Node, NodeConfig};

const COLD_SALES: u64 = 10_000;
const INGEST_SALES: u64 = 50_000;
const CATCH_UP: u64 = 100;
const LIVE_SALES: u64 = 300;
const PATIENCE: Duration = Duration::from_secs(120);
/// Repeats of the short measurements; their median counts.
const ROUNDS: usize = 9;

#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

/// Waits until a shop holds so many sales. It is told of every change, so it asks only then.
async fn until_sales(node: &Node, wanted: u64) -> anyhow::Result<()> {
    let mut changes = node.shop().changes();
    let waiting = async {
        loop {
            let held = node.shop().ask(|shop| shop.books().count_of(Kind::Sale)).await?;
            if held as u64 >= wanted {
                return Ok(());
            }
            loop {
                match changes.recv().await {
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) if changes.is_empty() => break,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => anyhow::bail!("the node ended"),
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.context("the sales did not arrive")?
}

/// Two nodes in this process, linked in memory.
struct Linked {
    first: Node,
    second: Node,
}

impl Linked {
    async fn start(pair: &Pair) -> anyhow::Result<Self> {
        let first = Node::start(NodeConfig::new(&pair.first)).await?;
        let second = Node::start(NodeConfig::new(&pair.second)).await?;
        Ok(Self { first, second })
    }

    /// Ends the link and waits until both shops know.
    async fn unlink(&self, tasks: Vec<tokio::task::JoinHandle<()>>) -> anyhow::Result<()> {
        self.first.links().close_all();
        for task in tasks {
            task.await?;
        }
        Ok(())
    }

    /// Links them.
    fn link(&self) -> Vec<tokio::task::JoinHandle<()>> {
        let (a, b) = (self.first.device(), self.second.device());
        let (left, right) = transport::memory_pair(key(a), key(b));
        vec![
            tokio::spawn(links::run(self.first.links(), self.first.shop().clone(), left)),
            tokio::spawn(links::run(self.second.links(), self.second.shop().clone(), right)),
        ]
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.first.stop().await.map_err(anyhow::Error::msg)?;
        self.second.stop().await.map_err(anyhow::Error::msg)
    }
}

fn key(device: DeviceId) -> transport::PeerKey {
    transport::PeerKey(device.0)
}

/// How long one shop takes for another's sales: its own work and the sender's, on this machine's
/// cores, until all of them are durable.
pub(super) async fn ingest_facts(at: &Path) -> anyhow::Result<Figure> {
    let pair = Pair::found(at, "ingest")?;
    world::fill(&pair.first, INGEST_SALES).await?;
    let nodes = Linked::start(&pair).await?;
    let rows = world::stored_entries(&nodes.first)?;
    let floor_s = floors::redb_inserts_s(at, &rows, 1_024)?;
    let started = Instant::now();
    let tasks = nodes.link();
    until_sales(&nodes.second, INGEST_SALES).await?;
    let rate = float(INGEST_SALES) / started.elapsed().as_secs_f64();
    nodes.unlink(tasks).await?;
    nodes.stop().await?;
    Ok(Figure::at_least("ingest_facts", rate, "facts/s", float(INGEST_SALES) / floor_s, 40_000.0))
}

/// CPU of both ends together for catching up, in a long history against a short one. Bytes are
/// compared too; the larger of the two ratios counts.
pub(super) async fn catch_up_100(at: &Path) -> anyhow::Result<Figure> {
    let (short_ms, short_bytes) = catch_up(at, "catch-up-short", 1_000).await?;
    let (long_ms, long_bytes) = catch_up(at, "catch-up-long", 100_000).await?;
    let bytes_ratio = float(long_bytes) / float(short_bytes);
    let mut figure = Figure::at_most_times("catch_up_100", long_ms, "ms CPU", short_ms, 1.2);
    figure.met &= bytes_ratio <= 1.2;
    figure.target =
        format!("at most 1.2 times CPU and bytes of a history of 1,000 (bytes: {long_bytes} against {short_bytes})");
    Ok(figure)
}

async fn catch_up(at: &Path, name: &str, history: u64) -> anyhow::Result<(f64, u64)> {
    let pair = Pair::found(at, name)?;
    world::fill(&pair.first, history).await?;
    let nodes = Linked::start(&pair).await?;
    let tasks = nodes.link();
    until_sales(&nodes.second, history).await?;
    nodes.unlink(tasks).await?;
    let (mut cpu, mut bytes) = (Vec::new(), 0);
    for round in 0..ROUNDS as u64 {
        let held = history + round * CATCH_UP;
        world::sell(&nodes.first, held, held + CATCH_UP).await?;
        let sent = nodes.first.links().bytes_sent() + nodes.second.links().bytes_sent();
        let started = process_cpu_ms();
        let tasks = nodes.link();
        until_sales(&nodes.second, held + CATCH_UP).await?;
        cpu.push(process_cpu_ms() - started);
        bytes = nodes.first.links().bytes_sent() + nodes.second.links().bytes_sent() - sent;
        nodes.unlink(tasks).await?;
    }
    nodes.stop().await?;
    Ok((median(cpu), bytes))
}

/// The CPU time of this process so far. Source: clock_gettime(2), CLOCK_PROCESS_CPUTIME_ID.
pub(super) fn process_cpu_ms() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "CPU seconds are few")]
    let ms = spent.tv_sec as f64 * 1e3 + spent.tv_nsec as f64 / 1e6;
    ms
}

/// Ten thousand sales from a till in another process to a new one here.
async fn cold_sync(at: &Path, name: &str, counted: bool) -> anyhow::Result<(f64, u64, Vec<Vec<u8>>)> {
    let pair = Pair::found(at, name)?;
    world::fill(&pair.first, COLD_SALES).await?;
    let till = ChildNode::start(&Launch::till(&pair.first)).await?;
    let address = till.tcp_address()?;
    let config = NodeConfig { listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()], ..NodeConfig::new(&pair.second) };
    let node = Node::start(config).await?;
    let wire = Wire::new().await?;
    wire.mend(address)?;
    let through = if counted { wire.dial_address() } else { address.to_owned() };
    let started = Instant::now();
    node.add_peer(&through).map_err(anyhow::Error::msg)?;
    until_sales(&node, COLD_SALES).await?;
    let spent = started.elapsed().as_secs_f64() * 1e3;
    let rows = world::stored_entries(&node)?;
    let bytes = wire.bytes();
    node.stop().await.map_err(anyhow::Error::msg)?;
    Ok((spent, bytes, rows))
}

pub(super) async fn cold_sync_time(at: &Path) -> anyhow::Result<Figure> {
    let (mut times, mut floors) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (spent, _, rows) = cold_sync(at, &format!("cold-{round}"), false).await?;
        times.push(spent);
        let floor = floors::tcp_copy_s(at, &rows)? + floors::redb_inserts_s(at, &rows, rows.len())?;
        floors.push(floor * 1e3);
    }
    Ok(Figure::at_most_times("cold_sync_10000_time", median(times), "ms", median(floors), 3.0))
}

pub(super) async fn cold_sync_bytes(at: &Path) -> anyhow::Result<Figure> {
    let (_, bytes, rows) = cold_sync(at, "cold-bytes", true).await?;
    let floor = zstd::bulk::compress(&rows.concat(), 3)?.len() as u64;
    Ok(Figure::at_most("cold_sync_10000_bytes", float(bytes) / 1e3, "KB", Some(float(floor) / 1e3), 600.0))
}

pub(super) async fn live_p50(at: &Path) -> anyhow::Result<Figure> {
    let pair = Pair::found(at, "live")?;
    let till = ChildNode::start(&Launch::till(&pair.first)).await?;
    let config = NodeConfig { listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()], ..NodeConfig::new(&pair.second) };
    let node = Node::start(config).await?;
    let mut changes = node.shop().changes();
    node.add_peer(till.tcp_address()?).map_err(anyhow::Error::msg)?;
    tokio::time::timeout(PATIENCE, wait_for(&mut changes, |change| matches!(change, Change::Peer { up: true, .. })))
        .await
        .context("the tills did not link")??;
    let mut disk = RawDisk::new(at)?;
    let (numbers, mut wanted) = mpsc::channel(1);
    let api = till.api;
    let seller = tokio::task::spawn_blocking(move || sell_when_told(api, &mut wanted));
    let (mut spent, mut floors) = (Vec::new(), Vec::new());
    for number in 0..LIVE_SALES {
        let started = Instant::now();
        numbers.send(number).await?;
        wait_for(&mut changes, |change| matches!(change, Change::Fact { kind: Kind::Sale, .. })).await?;
        spent.push(started.elapsed().as_secs_f64() * 1e6);
        floors.push(disk.once_us()? + disk.once_us()?);
    }
    drop(numbers);
    seller.await??;
    node.stop().await.map_err(anyhow::Error::msg)?;
    Ok(Figure::at_most_times("live_p50", median(spent), "µs", median(floors), 5.0))
}

fn sell_when_told(api: SocketAddr, wanted: &mut mpsc::Receiver<u64>) -> anyhow::Result<()> {
    let mut client = Client::connect(api)?;
    while let Some(number) = wanted.blocking_recv() {
        let status = client.post("/api/sales", &world::sale_json(number))?;
        anyhow::ensure!(status == 202, "a sale was answered {status}");
    }
    Ok(())
}

async fn wait_for(changes: &mut broadcast::Receiver<Change>, wanted: impl Fn(&Change) -> bool) -> anyhow::Result<()> {
    loop {
        match changes.recv().await {
            Ok(change) if wanted(&change) => return Ok(()),
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => anyhow::bail!("the node ended"),
        }
    }
}
