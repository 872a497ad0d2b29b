//! Who is near but does not belong to the business.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use serde_json::Value;
use transport::{
    Limits, LinkIds,
    bluetooth::{Central, ExchangeTimes, HostLinkConfig, TAG_PERIOD, host_link},
};

use crate::stories::{
    PATIENCE,
    nodes::{ADAPTERS, Node, Story, system},
    until,
};

/// Another business next door never connects; somebody who connects all the same proves a key of
/// his own, learns a certificate, and is thrown out.
pub(crate) async fn a_stranger_is_refused() -> anyhow::Result<()> {
    let story = Story::new("strangers")?;
    story.found("ours", "GBP").await?;
    story.found("theirs", "GBP").await?;
    story.sell("ours", 3, 1).await?;
    let ours = story.over_the_air("ours", ADAPTERS[0]).await?;
    let theirs = story.over_the_air("theirs", ADAPTERS[1]).await?;
    for node in [&ours, &theirs] {
        until("Bluetooth", || async { Ok((!node.logged("Bluetooth is on")?.is_empty()).then_some(())) }).await?;
    }
    for node in [&ours, &theirs] {
        // Twice, as the first search may have been before the other one advertised what it does.
        until("a search that finds a stranger", || async {
            let searches = node.logged("searched")?;
            Ok((searches.iter().filter(|search| search["strangers"] != 0).count() >= 2).then_some(()))
        })
        .await
        .with_context(|| node.log_end())?;
        ensure!(node.links().await?.is_empty(), "two businesses are linked");
        ensure!(node.logged("connected over Bluetooth")?.is_empty(), "a stranger's tag was recognised");
    }
    theirs.stop().await?;
    a_quarter_of_an_hour_later(&ours).await?;

    let central = Central::open(Some(ADAPTERS[1])).await?;
    let began = Instant::now();
    let found = loop {
        // He does not care for tags.
        if let Some(found) = central.scan(Duration::from_secs(2), |_, _| true).await? {
            break found;
        }
        ensure!(began.elapsed() < PATIENCE, "nothing was found");
    };
    let connected = central.connect(&found, true).await?;
    let config = HostLinkConfig {
        secret_key: [66; 32],
        dialled: true,
        nonce: 66,
        remote: "a victim".to_owned(),
        times: ExchangeTimes::default(),
        limits: Limits::default(),
        link_ids: LinkIds::default(),
    };
    let mut link = host_link(config, connected.carrier).await?;
    // What a stranger is told, and what becomes of him when he asks for more.
    link.frames_out.send(Bytes::from_static(&[2, 0x80])).await.context("the link ended before a word")?;
    let mut told = 0;
    while let Some(Ok(frame)) =
        tokio::time::timeout(PATIENCE, link.frames_in.next()).await.context("he was not thrown out")?
    {
        told += frame.len();
    }
    if told > 1_024 {
        bail!("a stranger was told {told} bytes");
    }
    ensure!(ours.sales().await? == 3, "the till is not what it was");
    ensure!(ours.links().await?.is_empty(), "the stranger is still linked");
    ours.stop().await
}

/// Who listens does not see the same tag again.
async fn a_quarter_of_an_hour_later(ours: &Node) -> anyhow::Result<()> {
    let before = shown(ours)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)? + TAG_PERIOD;
    system(&["date", "-s", &format!("@{}", now.as_secs())]).await?;
    until("another tag", || async { Ok((shown(ours)? != before).then_some(())) }).await.with_context(|| ours.log_end())
}

fn shown(node: &Node) -> anyhow::Result<Value> {
    Ok(node.logged("advertising")?.last().context("no tag is shown")?["tag"].clone())
}
