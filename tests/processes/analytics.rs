//! What a carrier's calls came to: alerts while it happens, figures and metrics afterwards, which a
//! killed node still knows.

use std::path::Path;

use futures::StreamExt;
use serde_json::{Value, json};

use crate::node::{Node, init, text};
use crate::upstream_server::{Upstream, Whim};

async fn queue(node: &Node, id: &str) {
    let operation = json!({
        "operation_id": id, "operation_type": "visit", "method": "POST", "endpoint": "/api/visits",
        "request_body": { "of": id },
    });
    let (status, answer) = node.post("/api/offline/queue", &operation).await;
    assert!(status.is_success(), "{status} {answer}");
}

async fn read(node: &Node, path: &str) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(format!("{}{path}", node.api)).send().await.unwrap().text().await.unwrap()
}

/// The metrics that count up, by name and labels.
async fn counters(node: &Node) -> Vec<String> {
    let metrics = read(node, "/metrics").await;
    let counts = |line: &&str| line.starts_with("tillmesh_upstream_") || line.starts_with("tillmesh_alerts_total");
    metrics.lines().filter(counts).map(str::to_owned).collect()
}

/// Waits until the node's events have told of so many alerts; gives them.
async fn alerts(node: &Node, count: usize) -> tokio::task::JoinHandle<Vec<Value>> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(format!("{}/api/events", node.api)).send().await.unwrap();
    let mut chunks = answer.bytes_stream();
    tokio::spawn(async move {
        let mut told = String::new();
        loop {
            let events = told.split("\n\n").filter_map(|event| event.strip_prefix("event: alert\ndata: "));
            let events: Vec<Value> = events.filter_map(|data| serde_json::from_str(data).ok()).collect();
            if events.len() >= count {
                return events;
            }
            told.push_str(std::str::from_utf8(&chunks.next().await.unwrap().unwrap()).unwrap());
        }
    })
}

fn start(at: &Path, folder: &Path) -> Node {
    Node::start(folder, &["--upstream", text(&at.join("upstream.toml"))])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_are_alerted_and_a_killed_node_knows_what_its_calls_came_to() {
    let server = Upstream::start(true).await;
    let at = tempfile::tempdir().unwrap();
    let folder = at.path().join("till");
    init(&folder);
    std::fs::write(at.path().join("upstream.toml"), server.file("")).unwrap();
    let till = start(at.path(), &folder);
    server.misbehave("refused", [Whim::Status(422, json!({ "code": "closed_day" }))]);
    server.misbehave("contradicted", [Whim::Status(409, json!({ "code": "odd" }))]);
    server.misbehave("twice", [Whim::Status(500, json!({}))]);
    let told = alerts(&till, 2).await;
    for id in ["refused", "contradicted", "twice", "plain"] {
        queue(&till, id).await;
    }
    let kinds: Vec<Value> = told.await.unwrap().into_iter().map(|alert| alert["kind"].clone()).collect();
    assert!(kinds.contains(&json!("operation_failed")) && kinds.contains(&json!("operation_conflict")), "{kinds:?}");
    till.until("/api/offline/status", |status| status["synced"] == json!(2)).await;

    let said = till.get("/api/analytics").await.1;
    let total = &said["total"];
    let calls = ["calls", "success", "failed", "partial", "cut_off"].map(|field| total[field].as_u64().unwrap());
    assert_eq!(calls, [5, 2, 3, 0, 0], "{said}");
    assert_eq!((total["success_rate"].clone(), total["attempts_per_success"].clone()), (json!(0.4), json!(1.5)));
    assert_eq!(total["errors"]["VALIDATION"], 1, "{said}");
    assert!(total["latency"]["p95_ms"].as_u64() <= total["latency"]["max_ms"].as_u64());
    assert_eq!((said["days"][0]["calls"].clone(), said["devices"][0]["calls"].clone()), (json!(5), json!(5)), "{said}");
    assert_eq!(till.get("/api/analytics?from=2001-01-01&to=2001-03-01").await.1["total"]["calls"], 0);
    assert_eq!(till.get("/api/analytics?from=2001-01-01").await.0, 422);

    let before = counters(&till).await;
    let holds = |line: &str| assert!(before.contains(&line.to_owned()), "{line} in {before:#?}");
    holds("tillmesh_alerts_total{kind=\"operation_failed\"} 1");
    holds("tillmesh_alerts_total{kind=\"operation_conflict\"} 1");
    holds("tillmesh_upstream_errors_total{class=\"SERVER_ERROR\"} 1");
    holds("tillmesh_upstream_call_duration_seconds_count 5");

    let failures = till.get("/api/audit?status=failed&type=visit&limit=2").await.1;
    assert_eq!(failures["items"].as_array().unwrap().len(), 2, "{failures}");
    let next = failures["next"].as_str().unwrap();
    let rest = till.get(&format!("/api/audit?status=failed&type=visit&cursor={next}")).await.1;
    assert_eq!((rest["items"].as_array().unwrap().len(), rest["next"].clone()), (1, Value::Null), "{rest}");
    let codes: Vec<&Value> = [&failures, &rest]
        .iter()
        .flat_map(|page| page["items"].as_array().unwrap())
        .map(|call| &call["http_status"])
        .collect();
    assert!([422, 409, 500].iter().all(|status| codes.contains(&&json!(status))), "{codes:?}");
    for none in ["status=cut_off", "type=sale", "to=2001-01-01", "network=wifi"] {
        assert_eq!(till.get(&format!("/api/audit?{none}")).await.1["items"], json!([]), "{none}");
    }

    let till = start(at.path(), &till.kill());
    assert_eq!(counters(&till).await, before);
    assert_eq!(till.get("/api/analytics").await.1["total"], *total);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_carrier_tells_how_long_its_server_was_away() {
    let server = Upstream::start(true).await;
    let at = tempfile::tempdir().unwrap();
    let folder = at.path().join("till");
    init(&folder);
    // Nobody listens on this port of the same machine.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = server.file("").replace(&server.address.to_string(), &free.to_string());
    std::fs::write(at.path().join("upstream.toml"), away).unwrap();
    let till = start(at.path(), &folder);
    for number in 0..12 {
        queue(&till, &format!("visit-{number}")).await;
    }
    let away = till.until("/api/analytics", |said| said["offline_now"] == json!(["upstream"])).await;
    let upstream =
        |said: &Value| said["offline"].as_array().unwrap().iter().find(|one| one["without"] == "upstream").cloned();
    assert_eq!(upstream(&away).unwrap()["stretches"], 1, "{away}");
    assert!(read(&till, "/metrics").await.contains("tillmesh_offline{without=\"upstream\"} 1\n"));
    let longer =
        till.until("/api/analytics", |said| upstream(said).unwrap()["offline_ms"].as_u64() >= Some(1_000)).await;
    assert_eq!(longer["days"].as_array().unwrap().len(), 1, "{longer}");

    std::fs::write(at.path().join("upstream.toml"), server.file("")).unwrap();
    let till = start(at.path(), &till.kill());
    till.until("/api/offline/status", |status| status["synced"] == json!(12)).await;
    let back = till.until("/api/analytics", |said| said["offline_now"] == json!([])).await;
    assert!(upstream(&back).unwrap()["stretches"].as_u64() >= Some(1), "what was written stays: {back}");
}
