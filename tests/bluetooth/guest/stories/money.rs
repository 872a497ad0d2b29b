//! A customer pays at a till that has nothing but Bluetooth: the receipt comes by way of a
//! colleague's device, which has met the relay.

use anyhow::Context;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::stories::{
    nodes::{ADAPTERS, Node, Story, same_books},
    say, until,
};

pub(crate) async fn a_receipt_by_way_of_a_colleague() -> anyhow::Result<()> {
    let story = Story::new("receipt")?;
    story.found("colleague", "KES").await?;
    story.admit("colleague", &[("relay", "relay"), ("till", "till")]).await?;
    let credentials = story.path("mpesa.toml");
    let credentials = credentials.to_str().context("a path")?;
    // Its processes end with the guest, at the latest.
    let mut simulator = Command::new("tillmesh")
        .args(["mpesa-simulator", "--json", "--listen", "127.0.0.1:0", "--credentials-out", credentials])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(simulator.stdout.take().context("no output")?).lines();
    lines.next_line().await?.context("the simulator did not start")?;

    // LAN; LAN and Bluetooth; Bluetooth.
    let relay = Node::start(
        "relay",
        &story.path("relay"),
        &["--mpesa", credentials, "--callbacks", "127.0.0.1:0", "--bluetooth", "off"],
    )
    .await?;
    let to_relay = relay.addresses.first().context("the relay listens nowhere")?.clone();
    let colleague = Node::start(
        "run",
        &story.path("colleague"),
        &["--listen", "/ip4/127.0.0.1/tcp/0", "--peer", &to_relay, "--bluetooth", ADAPTERS[0]],
    )
    .await?;
    colleague.until_link("lan").await?;
    // An adapter may be named by its address, too.
    let adapters = transport::bluetooth::survey().await?;
    let second = adapters.iter().find(|adapter| adapter.name == ADAPTERS[1]).context("no second adapter")?;
    let address = second.address.clone().context("the second adapter has no address")?.to_lowercase();
    let till = story.over_the_air("till", &address).await?;
    let sale = json!({ "currency": "KES",
        "lines": [{ "sku": "BREAD", "quantity_milli": 2000, "unit_price_minor": 6500 }],
        "tenders": [{ "kind": "mpesa", "amount_minor": 13000, "phone": "254708374149" }] });
    let answer = till.post("/api/sales", &sale).await?;
    let path = format!("/api/sales/{}", answer["id"].as_str().context("no id")?);
    let paid = until("a receipt", || async {
        let sale = till.get(&path).await?;
        Ok((sale["tenders"][0]["state"] == "paid").then_some(sale))
    });
    let paid: Value = paid.await.with_context(|| till.log_end())?;
    anyhow::ensure!(till.links().await?.iter().all(|link| link["kind"] == "bluetooth"), "the till has another way");
    say(&format!("the receipt arrived: {}", paid["tenders"][0]));
    same_books(&colleague, &till).await?;
    till.stop().await?;
    colleague.stop().await?;
    relay.stop().await
}
