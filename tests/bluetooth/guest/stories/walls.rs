//! Two devices meet over Bluetooth, tell each other where they listen, and go on over Wi-Fi.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use crate::stories::{
    nodes::{ADAPTERS, Node, Story, same_books, system},
    say,
};

pub(crate) async fn over_to_wifi_and_back() -> anyhow::Result<()> {
    let story = Story::new("wifi")?;
    story.found("first", "GBP").await?;
    story.admit("first", &[("second", "till")]).await?;
    // Addresses that no other process has, as in a network.
    system(&["ip", "addr", "add", "10.7.0.1/32", "dev", "lo"]).await?;
    system(&["ip", "addr", "add", "10.7.0.2/32", "dev", "lo"]).await?;
    let start = |name: &'static str, address: &'static str, adapter: &'static str| {
        let folder = story.path(name);
        async move { Node::start("run", &folder, &["--listen", address, "--bluetooth", adapter]).await }
    };
    let first = start("first", "/ip4/10.7.0.1/tcp/7471", ADAPTERS[0]).await?;
    let second = start("second", "/ip4/10.7.0.2/tcp/7471", ADAPTERS[1]).await?;
    first.until_link("lan").await.with_context(|| second.log_end())?;
    ensure!(
        !second.logged("connected over Bluetooth")?.is_empty() || !first.logged("connected over Bluetooth")?.is_empty(),
        "they found each other in another way"
    );
    // Sales go on while Bluetooth makes room.
    let mut slowest = Duration::ZERO;
    let mut sold = 0;
    let began = Instant::now();
    let mut both = 0;
    loop {
        slowest = slowest.max(sell_and_see(&first, &second, &mut sold).await?);
        let links = second.links().await?;
        ensure!(!links.is_empty(), "there was a gap after {sold} sales");
        if links.iter().all(|link| link["kind"] == "lan") && links.len() == 1 {
            break;
        }
        both += u32::from(links.len() > 1);
        ensure!(began.elapsed() < crate::stories::PATIENCE, "Bluetooth does not rest: {links:?}");
    }
    ensure!(both > 0, "both links were never up together");
    say(&format!("over to Wi-Fi with {sold} sales on the way; the slowest was there after {} ms", slowest.as_millis()));
    // The Wi-Fi is gone, and with it every connection over it.
    first.stop().await?;
    let first = Node::start("run", &story.path("first"), &["--no-lan", "--bluetooth", ADAPTERS[0]]).await?;
    second.until_link("bluetooth").await?;
    sell_and_see(&first, &second, &mut sold).await?;
    same_books(&first, &second).await?;
    first.stop().await?;
    second.stop().await
}

/// How long a sale takes from one device to the other.
async fn sell_and_see(at: &Node, on: &Node, sold: &mut u64) -> anyhow::Result<Duration> {
    let sale = json!({ "currency": "GBP",
        "lines": [{ "sku": "BREAD", "quantity_milli": 1000, "unit_price_minor": 120 }],
        "tenders": [{ "kind": "cash", "amount_minor": 120 }] });
    at.post("/api/sales", &sale).await?;
    *sold += 1;
    let began = Instant::now();
    on.until_sales(*sold).await?;
    Ok(began.elapsed())
}
