//! A shop that has a server already: what is sold while that fails, goes silent or turns something
//! away reaches it in the end, once each. The server is the one that the tests misbehave with.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    dead_code,
    reason = "the server is shared with the tests, which use more of it"
)]

#[path = "../tests/support/upstream.rs"]
mod upstream;

use std::time::Duration;

use anyhow::ensure;
use crdt_model::money::Currency;
use crdt_model::record::{Custom, Source};
use serde_json::json;
use tillmesh_node::folder;
use tillmesh_node::node::{Node, NodeConfig};
use tillmesh_node::queue::QueueStatus;
use tillmesh_node::shop_loop::now;
use tillmesh_node::upstream::UpstreamConfig;
use upstream::{Upstream, Whim};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = Upstream::start(true).await;
    server.misbehave("visit-2", [Whim::Status(503, json!({}))]);
    server.misbehave("visit-3", [Whim::Status(422, json!({ "code": "no_such_shop" }))]);

    let data = tempfile::tempdir()?;
    folder::found(data.path(), "Duka", Currency::KES, 180, "phone", now())?;
    let mut config = NodeConfig::new(data.path());
    let mut way = UpstreamConfig::new(format!("http://{}", server.address).parse()?);
    way.allow_loopback = true;
    way.backoff_base_ms = 20;
    config.upstream = Some(way);
    let node = Node::start(config).await?;
    for number in 1..=3 {
        node.queue().add(visit(number), None).await?;
    }

    let queue = node.queue();
    loop {
        let summary = queue.sync(Duration::ZERO).await?;
        println!("{} delivered, {} not, of {}", summary.success, summary.failed, summary.total);
        let now = queue.status().await?;
        if now.of(QueueStatus::Pending) + now.of(QueueStatus::Syncing) == 0 {
            break;
        }
    }
    ensure!(queue.status().await?.of(QueueStatus::Failed) == 1, "the server turned one away");
    // Somebody has mended it, and wants it tried again.
    queue.retry(None).await?;
    queue.sync(Duration::ZERO).await?;
    ensure!(queue.status().await?.of(QueueStatus::Synced) == 3, "all are there");
    for (operation, times) in server.taken_all() {
        println!("{operation}: taken {times} time");
        ensure!(times == 1, "{operation} was taken {times} times");
    }
    node.stop().await.map_err(anyhow::Error::msg)
}

fn visit(number: u32) -> Custom {
    Custom {
        source: Some(Source { instance: "app".to_owned(), key: format!("visit-{number}") }),
        operation_type: "visit".to_owned(),
        method: "POST".to_owned(),
        path: "/api/visits".to_owned(),
        body: json!({ "shop": "Kiosk" }).to_string(),
        ..Custom::default()
    }
}
