//! A till with a long history.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use super::http::Client;
use super::{Figure, median, world};

use crate::lab::{ChildNode, Launch};

const SALES: u64 = 100_000;

/// A till with 100,000 sales, made once a run.
pub(super) async fn large_till(at: &Path) -> anyhow::Result<std::path::PathBuf> {
    let folder = at.join("large-till");
    if !folder.exists() {
        world::till(at, "large-till")?;
        world::fill(&folder, SALES).await?;
    }
    Ok(folder)
}

pub(super) async fn status(at: &Path) -> anyhow::Result<Figure> {
    let node = ChildNode::start(&Launch::till(&large_till(at).await?)).await?;
    let api = node.api;
    let (statuses, floors) = tokio::task::spawn_blocking(move || ask_in_turn(api)).await??;
    // The floor is the API's cheapest answer.
    Ok(Figure::at_most("status_100000", median(statuses), "ms", Some(median(floors)), 1.0))
}

fn ask_in_turn(api: SocketAddr) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let mut client = Client::connect(api)?;
    let mut timed_ms = |path: &str| {
        let started = Instant::now();
        let status = client.read(path)?;
        anyhow::ensure!(status == 200, "{path} was answered {status}");
        Ok(started.elapsed().as_secs_f64() * 1e3)
    };
    let (mut statuses, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..1_000 {
        statuses.push(timed_ms("/api/offline/status")?);
        floors.push(timed_ms("/healthz")?);
    }
    Ok((statuses, floors))
}

pub(super) async fn memory(at: &Path) -> anyhow::Result<Figure> {
    let empty = ChildNode::start(&Launch::till(&world::till(at, "empty-till")?)).await?;
    let node = ChildNode::start(&Launch::till(&large_till(at).await?)).await?;
    let api = node.api;
    // It has answered something, as a till in use has.
    tokio::task::spawn_blocking(move || Client::connect(api)?.read("/api/sales?limit=200")).await??;
    let megabytes = |bytes: u64| {
        #[expect(clippy::cast_precision_loss, reason = "a process's memory is far below 2^53 bytes")]
        let bytes = bytes as f64;
        bytes / 1e6
    };
    let floor = megabytes(empty.resident_bytes()?);
    Ok(Figure::at_most("till_100000_memory", megabytes(node.resident_bytes()?), "MB", Some(floor), 120.0))
}
