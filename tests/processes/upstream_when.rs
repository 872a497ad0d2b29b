//! When a carrier sends: on which network, at which hours, how much a day, and at once when there
//! is a network again.

use std::path::Path;

use serde_json::{Value, json};

use crate::node::Node;
use crate::upstream::{patch, post, queue, till_with, until_synced};
use crate::upstream_server::Upstream;

/// An app's question, which says what the device knows of its network.
async fn says(node: &Node, headers: &[(&str, &str)]) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let asking = client.post(format!("{}/api/offline/retry", node.api)).json(&json!({}));
    let asking = headers.iter().fold(asking, |asking, (name, value)| asking.header(*name, *value));
    assert!(asking.send().await.unwrap().status().is_success());
}

async fn until_waits_for(node: &Node, word: &str) -> Value {
    node.until("/api/offline/status", |status| status["schedule"]["waits_for"] == json!(word)).await
}

/// The minute of the shop's day.
fn minute_now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    // A business has the hours of Nairobi, if nobody says otherwise.
    (since.as_secs() / 60 + 180) % 1_440
}

async fn till(server: &Upstream, at: &Path) -> Node {
    till_with(server, at, "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_sends_over_wi_fi_only_off_peak_only_and_within_the_days_budget_which_a_restart_keeps() {
    let server = Upstream::start(true).await;
    let at = tempfile::tempdir().unwrap();
    let mobile = [("x-network-type", "4g")];
    let node = till(&server, at.path()).await;
    says(&node, &mobile).await;
    patch(&node, "/api/offline/config", &json!({ "wifi_only": true })).await;
    queue(&node, "first", "POST", "/api/visits", json!({}), json!({})).await;
    let status = until_waits_for(&node, "no_wifi").await;
    assert_eq!((status["pending"].clone(), server.taken("first")), (json!(1), 0), "{status}");
    says(&node, &[("x-network-type", "wifi")]).await;
    until_synced(&node, 1).await;

    let closed = json!({ "wifi_only": null, "off_peak_start_minute": (minute_now() + 120) % 1_440,
        "off_peak_end_minute": (minute_now() + 180) % 1_440 });
    patch(&node, "/api/offline/config", &closed).await;
    queue(&node, "second", "POST", "/api/visits", json!({}), json!({})).await;
    let status = until_waits_for(&node, "off_peak").await;
    assert!(status["schedule"]["until"].is_string(), "{status}");
    assert_eq!(server.taken("second"), 0);
    let open = json!({ "off_peak_start_minute": null, "off_peak_end_minute": null, "data_budget_mb_per_day": 1 });
    patch(&node, "/api/offline/config", &open).await;
    until_synced(&node, 2).await;

    // A megabyte over the mobile network, and the day's budget is used up.
    says(&node, &mobile).await;
    let photo = "x".repeat(30_000);
    for number in 0..17 {
        queue(&node, &format!("photo-{number}"), "POST", "/api/photos", json!({ "data": photo }), json!({})).await;
    }
    until_synced(&node, 19).await;
    queue(&node, "third", "POST", "/api/visits", json!({}), json!({})).await;
    let status = until_waits_for(&node, "data_budget").await;
    assert_eq!(status["pending"], 1, "{status}");
    node.kill();
    let node = till(&server, at.path()).await;
    says(&node, &mobile).await;
    until_waits_for(&node, "data_budget").await;
    assert_eq!(server.taken("third"), 0, "a restart gives no second budget");
    // Who asks for it gets it sent all the same.
    assert_eq!(post(&node, "/api/offline/sync", &json!({})).await["success"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_back_is_noticed_at_once() {
    let server = Upstream::start(true).await;
    let at = tempfile::tempdir().unwrap();
    // Nothing but somebody's word ends such a pause within this story.
    let pauses = "backoff_base_ms = 600000\nbackoff_cap_ms = 900000\nbreaker_after = 1\n";
    let (folder, file) = (at.path().join("till"), at.path().join("up.toml"));
    let settings = server.file("");
    let own = settings.lines().filter(|line| !line.starts_with("backoff")).collect::<Vec<_>>().join("\n");
    std::fs::write(&file, format!("{own}\n{pauses}")).unwrap();
    crate::node::init(&folder);
    let node = Node::start(&folder, &["--upstream", crate::node::text(&file)]);
    for (round, word) in [[("x-network-type", "wifi")], [("x-is-online", "true")]].into_iter().enumerate() {
        server.go_away().await;
        let id = format!("visit-{round}");
        queue(&node, &id, "POST", "/api/visits", json!({}), json!({})).await;
        let away = until_waits_for(&node, "server_away").await;
        assert!(away["schedule"]["until"].is_string(), "{away}");
        says(&node, &[("x-is-online", "false")]).await;
        server.come_back().await;
        says(&node, &word).await;
        // Long before its next try.
        until_synced(&node, round as u64 + 1).await;
    }
    // Another device that comes into reach says the same.
    node.admit(&at.path().join("second"), "till").await;
    server.go_away().await;
    queue(&node, "visit-2", "POST", "/api/visits", json!({}), json!({})).await;
    until_waits_for(&node, "server_away").await;
    server.come_back().await;
    let _second = Node::start(&at.path().join("second"), &["--peer", &node.addresses[0]]);
    until_synced(&node, 3).await;
    assert!(server.taken_all().values().all(|times| *times == 1));
}
