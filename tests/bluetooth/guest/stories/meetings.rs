//! Two tills meet where there is nothing but Bluetooth.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::stories::{
    Figures,
    nodes::{ADAPTERS, Node, Story, cut_the_air, on_the_air, same_books},
    say, until,
};

const SALES: usize = 1_000;
/// How much is on the air before a transfer is cut: enough for several runs, and far from all.
const UNDER_WAY_BYTES: u64 = 40 * 1024;
/// In a run of many.
const SALE_BYTES_MAX: u64 = 60;

pub(crate) async fn a_thousand_sales_both_ways(figures: &mut Figures) -> anyhow::Result<()> {
    let story = Story::new("both-ways")?;
    story.found("first", "GBP").await?;
    story.admit("first", &[("second", "till")]).await?;
    story.sell("first", SALES, 10_000).await?;
    story.sell("second", SALES, 20_000).await?;
    let first = story.over_the_air("first", ADAPTERS[0]).await?;
    let began = Instant::now();
    let second = story.over_the_air("second", ADAPTERS[1]).await?;
    let link = second.until_link("bluetooth").await.with_context(|| first.log_end())?;
    let met = began.elapsed();
    first.until_sales(2 * SALES as u64).await.with_context(|| first.log_end())?;
    second.until_sales(2 * SALES as u64).await.with_context(|| second.log_end())?;
    let all = began.elapsed();
    same_books(&first, &second).await?;
    say(&format!(
        "two tills met in {:.1} s over {}, and had exchanged 2 x {SALES} sales after {:.1} s",
        met.as_secs_f64(),
        link["remote"].as_str().unwrap_or_default(),
        all.as_secs_f64()
    ));
    for fields in [&first, &second].iter().filter_map(|node| node.logged("connected over Bluetooth").ok()).flatten() {
        say(&format!(
            "connected in {} ms, service in {} ms, over {} with MTU {}, fragments of {} bytes",
            fields["connect_ms"], fields["discover_ms"], fields["medium"], fields["mtu"], fields["fragment_bytes"]
        ));
    }
    figures.note("meet_s", met.as_secs_f64());
    live_sales(&first, &second, figures).await?;
    second.stop().await?;
    let second = waiting_sales(&story, &first, figures).await?;
    first.stop().await?;
    second.stop().await
}

fn sale(n: usize) -> Value {
    json!({ "currency": "GBP",
        "lines": [{ "sku": format!("SKU{}", n % 40), "quantity_milli": 1000, "unit_price_minor": 250 + n % 7 * 50 }],
        "tenders": [{ "kind": "cash", "amount_minor": 250 + n % 7 * 50 }] })
}

/// A hundred sales while the colleague was away: everything that is on the air when they meet,
/// the proof of both keys included.
async fn waiting_sales(story: &Story, first: &Node, figures: &mut Figures) -> anyhow::Result<Node> {
    const WAITING: usize = 100;
    first.until_no_link("bluetooth").await?;
    let before = first.sales().await?;
    for n in 0..WAITING {
        first.post("/api/sales", &sale(n)).await?;
    }
    let second = story.over_the_air("second", ADAPTERS[1]).await?;
    second.until_sales(before + WAITING as u64).await.with_context(|| first.log_end())?;
    let bytes = quiet(first).await?;
    figures.note("waiting_100_bytes", bytes as f64);
    say(&format!("{WAITING} sales that had waited, and the whole meeting: {bytes} bytes on the air"));
    Ok(second)
}

/// What is on the air for one sale, and for a hundred that waited, acknowledgements included.
async fn live_sales(first: &Node, second: &Node, figures: &mut Figures) -> anyhow::Result<()> {
    let before = second.sales().await?;
    // The first one carries what is said once.
    first.post("/api/sales", &sale(0)).await?;
    second.until_sales(before + 1).await?;
    let from = quiet(first).await?;
    const LIVE: usize = 5;
    for n in 1..=LIVE {
        first.post("/api/sales", &sale(n)).await?;
        second.until_sales(before + 1 + n as u64).await?;
        quiet(first).await?;
    }
    let bytes = quiet(first).await?.saturating_sub(from);
    figures.note("live_sale_bytes", bytes as f64 / LIVE as f64);
    say(&format!("a live sale: {:.0} bytes on the air", bytes as f64 / LIVE as f64));
    Ok(())
}

/// Waits until nothing is on the air; gives how much has been, both ways.
async fn quiet(node: &Node) -> anyhow::Result<u64> {
    let mut last = carried(node).await?;
    loop {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let now = carried(node).await?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
}

async fn carried(node: &Node) -> anyhow::Result<u64> {
    let links = node.links().await?;
    let link = links.iter().find(|link| link["kind"] == "bluetooth").context("no link over Bluetooth")?;
    let of = |key: &str| link[key].as_u64().unwrap_or(0);
    Ok(of("carried_sent_bytes") + of("carried_received_bytes"))
}

/// One till has much more than the other. The link is cut in the middle; then the other till's
/// process is killed, and bluetoothd goes on. Each meeting goes on where the last one stopped.
pub(crate) async fn cut_in_the_middle() -> anyhow::Result<()> {
    const MANY: u64 = 8_000;
    let story = Story::new("cut")?;
    story.found("first", "GBP").await?;
    story.admit("first", &[("second", "till")]).await?;
    story.sell("first", MANY as usize, 100_000).await?;
    for name in ["first", "second"] {
        story.channels(name, false)?;
    }
    let before = on_the_air().await?;
    let first = story.over_the_air("first", ADAPTERS[0]).await?;
    let second = story.over_the_air("second", ADAPTERS[1]).await?;
    under_way(before).await.with_context(|| second.log_end())?;
    cut_the_air().await?;
    let held = second.sales().await?;
    ensure!((1..MANY).contains(&held), "the cut came too late or lost something: {held} sales");
    say(&format!("the link was cut at {held} of {MANY} sales"));

    // Their logs are read, as a busy till answers late.
    let media = until("another meeting", || async {
        let media = [connected_by(&first)?, connected_by(&second)?].concat();
        Ok((media.len() >= 2).then_some(media))
    })
    .await
    .with_context(|| second.log_end())?;
    ensure!(media.iter().all(|medium| medium == "gatt"), "this was to be GATT: {media:?}");
    under_way(on_the_air().await?).await.with_context(|| second.log_end())?;
    second.kill().await?;
    let second = story.over_the_air("second", ADAPTERS[1]).await?;
    let kept = second.sales().await?;
    ensure!((held + 1..MANY).contains(&kept), "a killed till kept {kept} sales of {}", held + 1);
    say(&format!("a till was killed at {kept} sales"));

    let began = Instant::now();
    second.until_sales(MANY).await.with_context(|| second.log_end())?;
    same_books(&first, &second).await?;
    let link = second.until_link("bluetooth").await?;
    // What had come before must not have come again.
    let whole = link["received_bytes"].as_u64().unwrap_or(u64::MAX);
    ensure!(whole < (MANY - kept) * SALE_BYTES_MAX + 20_000, "{whole} bytes came for {} sales", MANY - kept);
    say(&format!("the rest, {whole} bytes, was there {:.1} s after its start", began.elapsed().as_secs_f64()));
    first.stop().await?;
    second.stop().await
}

/// What carried the connections that a node has made.
fn connected_by(node: &Node) -> anyhow::Result<Vec<Value>> {
    let logged = node.logged("connected over Bluetooth")?;
    Ok(logged.into_iter().map(|fields| fields["medium"].clone()).collect())
}

/// Waits until a transfer is in its middle.
async fn under_way(before: u64) -> anyhow::Result<()> {
    let what = "a transfer under way";
    until(what, || async { Ok((on_the_air().await? >= before + UNDER_WAY_BYTES).then_some(())) }).await
}
