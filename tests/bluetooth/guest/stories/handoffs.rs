//! A shift changes hands where there is nothing but Bluetooth, and contact breaks again and again.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::stories::{
    nodes::{ADAPTERS, Node, Story, answer, cut_the_air, same_books},
    say,
    stack::Stack,
    until,
};

pub(crate) async fn interrupted_handoff(stack: &mut Stack) -> anyhow::Result<()> {
    let story = Story::new("handoff")?;
    story.found("first", "GBP").await?;
    story.admit("first", &[("second", "till")]).await?;
    let (first, second) = (story.path("first"), story.path("second"));
    let giver = story.over_the_air("first", ADAPTERS[0]).await?;
    let receiver = story.over_the_air("second", ADAPTERS[1]).await?;
    let opened = giver.post("/api/shifts", &json!({ "float_minor": FLOAT })).await?;
    let shift = opened["id"].as_str().context("no shift")?.to_owned();
    giver.post("/api/sales", &sale()).await?;
    receiver.until_sales(1).await.with_context(|| receiver.log_end())?;

    // Contact breaks before the offer is made: it waits at the giver, and the shift is frozen.
    cut_the_air().await?;
    let offered = answer(&["handoff", "offer", "--to", "second", "--counted", "502.50"], &first).await?;
    let id = offered["id"].as_str().context("no handoff")?.to_owned();
    let path = format!("/api/handoffs/{id}");
    let frozen = giver.post("/api/sales", &sale()).await.err().context("the giver sold on a frozen shift")?;
    ensure!(frozen.to_string().contains("shift_frozen"), "{frozen}");
    until("the offer", || async {
        let known = receiver.get(&path).await.ok();
        Ok(known.filter(|handoff| handoff["status"] == "offered" && handoff["missing"] == 0))
    })
    .await
    .with_context(|| receiver.log_end())?;

    // The giver's plug is pulled; the receiver accepts alone, and then its plug is pulled, too.
    giver.kill().await?;
    let accepted = answer(&["handoff", "accept"], &second).await?;
    ensure!(accepted["status"] == "accepted", "{accepted}");
    receiver.kill().await?;
    stack.renew().await?;
    let giver = story.over_the_air("first", ADAPTERS[0]).await?;
    ensure!(status(&giver, &path).await? == "offered", "the giver can't have heard of it");

    // Contact breaks once more, as soon as there is some.
    let receiver = story.over_the_air("second", ADAPTERS[1]).await?;
    giver.until_link("bluetooth").await.with_context(|| receiver.log_end())?;
    match cut_the_air().await {
        Ok(()) => say(&format!("cut while the giver saw the handoff {}", status(&giver, &path).await?)),
        Err(error) => return Err(error),
    }
    for node in [&receiver, &giver] {
        until("a completed handoff", || async { Ok((status(node, &path).await? == "completed").then_some(())) })
            .await
            .with_context(|| node.log_end())?;
    }
    receiver.post("/api/sales", &sale()).await?;
    same_books(&giver, &receiver).await?;
    for node in [&giver, &receiver] {
        let report = node.get(&format!("/api/reports/z?shift={shift}")).await?;
        ensure!(report["shift"]["cash_expected_minor"] == FLOAT + 2 * PRICE, "the drawer is not right: {report}");
    }
    let verdict = until("a verdict", || async {
        let verdict = answer(&["safe-to-wipe"], &first).await?;
        Ok((verdict["only_here"] == 0).then_some(verdict))
    })
    .await?;
    say(&format!("the giver may be wiped but for {}", verdict["reasons"]));
    giver.stop().await?;
    receiver.stop().await
}

async fn status(node: &Node, path: &str) -> anyhow::Result<String> {
    Ok(node.get(path).await?["status"].as_str().context("no status")?.to_owned())
}

fn sale() -> Value {
    json!({ "currency": "GBP",
        "lines": [{ "sku": "BREAD", "quantity_milli": 1000, "unit_price_minor": PRICE }],
        "tenders": [{ "kind": "cash", "amount_minor": PRICE }] })
}

const FLOAT: i64 = 50_000;
const PRICE: i64 = 250;
