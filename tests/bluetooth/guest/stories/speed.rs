//! How much of a slow link a session makes use of: what two nodes move over a connection, beside what
//! its carrier alone has just moved. The app that embeds the nodes carries the fragments.

use std::{net::Ipv4Addr, time::Instant};

use anyhow::{Context, ensure};
use crdt_model::record::Kind;
use serde_json::Value;
use tillmesh_node::node::{Node, NodeConfig};
use transport::bluetooth::Medium;

use crate::stories::{
    Figures,
    air::{Ends, Spent},
    nodes::{Story, connections},
    say, until, within,
};

/// Five seconds of the slow link, and more.
const SALES: usize = 3_000;
const RAW_BYTES: usize = 24 * 1024;
/// Of what the carrier alone moves.
const PERCENT_LEAST: f64 = 80.0;
/// The radio's pace, in KiB/s: a middling phone's at first, as they reach 4 to 30 over GATT. What else
/// runs on the machine below may fall into one half of a measurement, or make a connection end; then it
/// is measured again, with a slower radio, so that the processor is not what is measured.
const PACES: [f64; 4] = [10.0, 7.0, 5.0, 4.0];

pub(crate) async fn sessions_and_what_is_below(figures: &mut Figures) -> anyhow::Result<()> {
    let story = Story::new("speed")?;
    story.found("first", "GBP").await?;
    story.admit("first", &[("second", "till")]).await?;
    let mut sold = 0;
    for (medium, names) in [
        (Medium::L2cap, ["session_kib_s", "raw_kib_s", "session_percent"]),
        (Medium::Gatt, ["session_gatt_kib_s", "raw_gatt_kib_s", "session_gatt_percent"]),
    ] {
        let mut percent = 0.0;
        for pace in PACES {
            let compared = async {
                story.sell("first", SALES, 100_000 + sold).await?;
                sold += SALES;
                compare(&story, medium, pace, sold).await
            };
            let (session, raw) = match compared.await {
                Ok(compared) => compared,
                Err(error) => {
                    say(&format!("{medium}: {error:#}"));
                    continue;
                }
            };
            percent = session.kib_s() / raw.kib_s() * 100.0;
            for (name, value) in names.into_iter().zip([session.kib_s(), raw.kib_s(), percent]) {
                figures.note(name, value);
            }
            say(&format!(
                "{medium}: a session at {:.1} KiB/s, {percent:.0} % of the {:.1} KiB/s of the carrier alone ({} bytes)",
                session.kib_s(),
                raw.kib_s(),
                session.bytes
            ));
            if percent >= PERCENT_LEAST {
                break;
            }
        }
        ensure!(percent >= PERCENT_LEAST, "{medium}: a session made use of {percent:.0} % of the link");
    }
    Ok(())
}

/// A session that brings the second till up to so many sales, and the carrier alone, the same way.
async fn compare(story: &Story, medium: Medium, pace_kib_s: f64, sales: usize) -> anyhow::Result<(Spent, Spent)> {
    let mut ends = Ends::meet(medium, pace_kib_s).await?;
    let [raw, back] = within("raw bytes", ends.raw(RAW_BYTES)).await??;
    say(&format!("{medium}: {:.1} KiB/s, and {:.1} KiB/s back", raw.kib_s(), back.kib_s()));
    let first = within("the first start", start(story, "first")).await??;
    let second = within("the second start", start(story, "second")).await??;
    let Ends { near, far, peripheral } = ends;
    let (up, down) = (first.link_over(near, true, "second"), second.link_over(far, false, "first"));
    let (up, down) = within("a link", async { tokio::join!(up, down) }).await?;
    up?;
    down?;
    let began = Instant::now();
    until("the link", || async { Ok(is_linked(&second).await?.then_some(())) }).await?;
    until("all sales", || async {
        // Nobody makes this link again once it has ended.
        let linked = is_linked(&second).await?;
        let there = count(&second).await?;
        ensure!(linked || there == sales, "the link ended at {there} of {sales} sales");
        Ok((there == sales).then_some(()))
    })
    .await?;
    let time = began.elapsed();
    let session = Spent { bytes: within("a count of bytes", received(&second)).await??, time };
    let digests = async { anyhow::Ok((digest(&first).await?, digest(&second).await?)) };
    let (ours, theirs) = within("both books", digests).await??;
    ensure!(ours == theirs, "the books differ");
    within("the first stop", first.stop()).await?.map_err(anyhow::Error::msg)?;
    within("the second stop", second.stop()).await?.map_err(anyhow::Error::msg)?;
    drop(peripheral);
    until("the end of the connection", || async { Ok(connections().await?.is_empty().then_some(())) }).await?;
    Ok((session, raw))
}

async fn start(story: &Story, name: &str) -> anyhow::Result<Node> {
    let api = Some((Ipv4Addr::LOCALHOST, 0).into());
    Ok(Node::start(NodeConfig { api, ..NodeConfig::new(story.path(name)) }).await?)
}

async fn count(node: &Node) -> anyhow::Result<usize> {
    Ok(node.shop().ask(|shop| shop.books().count_of(Kind::Sale)).await?)
}

async fn digest(node: &Node) -> anyhow::Result<[u8; 32]> {
    Ok(node.shop().ask(|shop| shop.books().digest()).await?)
}

/// Bytes of messages that its link has brought.
async fn received(node: &Node) -> anyhow::Result<u64> {
    Ok(links(node).await?.iter().filter_map(|link| link["received_bytes"].as_u64()).sum())
}

async fn is_linked(node: &Node) -> anyhow::Result<bool> {
    Ok(!links(node).await?.is_empty())
}

async fn links(node: &Node) -> anyhow::Result<Vec<Value>> {
    let api = node.api().context("no API")?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let peers: Value = http.get(format!("http://{api}/api/peers")).send().await?.error_for_status()?.json().await?;
    let links = peers["items"].as_array().into_iter().flatten().filter_map(|peer| peer["links"].as_array());
    Ok(links.flatten().cloned().collect())
}
