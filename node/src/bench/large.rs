//! A till with a long history.

use std::path::Path;
use std::time::Instant;

use super::http::Client;
use super::{Figure, median, world};

use crate::lab::{ChildNode, Launch};

const SALES: u64 = 100_000;

/// A till with 100,000 sales, made once a run.
async fn large_till(at: &Path) -> anyhow::Result<std::path::PathBuf> {
    let folder = at.join("large-till");
    if !folder.exists() {
        world::till(at, "large-till")?;
        world::fill(&folder, SALES).await?;
    }
    Ok(folder)
}

pub(super) async fn status(at: &Path) -> anyhow::Result<Figure> {
    let node = ChildNode::start(&Launch::till(&large_till(at).await?)).await?;
    let mut client = Client::connect(node.api).await?;
    let (mut statuses, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..1_000 {
        statuses.push(timed_ms(&mut client, "/api/offline/status").await?);
        floors.push(timed_ms(&mut client, "/healthz").await?);
    }
    // The floor is the API's cheapest answer.
    Ok(Figure::at_most("status_100000", median(statuses), "ms", Some(median(floors)), 1.0))
}

async fn timed_ms(client: &mut Client, path: &str) -> anyhow::Result<f64> {
    let started = Instant::now();
    let status = client.read(path).await?;
    anyhow::ensure!(status == 200, "{path} was answered {status}");
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

pub(super) async fn memory(at: &Path) -> anyhow::Result<Figure> {
    let empty = ChildNode::start(&Launch::till(&world::till(at, "empty-till")?)).await?;
    let node = ChildNode::start(&Launch::till(&large_till(at).await?)).await?;
    let mut client = Client::connect(node.api).await?;
    client.read("/api/sales?limit=200").await?;
    let megabytes = |bytes: u64| {
        #[expect(clippy::cast_precision_loss, reason = "a process's memory is far below 2^53 bytes")]
        let bytes = bytes as f64;
        bytes / 1e6
    };
    let floor = megabytes(empty.resident_bytes()?);
    Ok(Figure::at_most("till_100000_memory", megabytes(node.resident_bytes()?), "MB", Some(floor), 120.0))
}
