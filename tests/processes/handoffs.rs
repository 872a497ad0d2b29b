//! A shift changes hands between real processes, one of which is killed in between.

use std::path::Path;

use serde_json::{Value, json};

use crate::node::{Node, init, run, text};

/// A command of the command line, answered by the folder's running node.
async fn command(folder: &Path, words: &[&str]) -> Result<Value, String> {
    let mut all: Vec<String> = words.iter().map(ToString::to_string).collect();
    all.extend(["--data".to_owned(), text(folder).to_owned()]);
    let running = tokio::task::spawn_blocking(move || {
        let words: Vec<&str> = all.iter().map(String::as_str).collect();
        run(&words)
    });
    running.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shift_is_handed_over_by_the_command_line_though_its_giver_is_killed_in_between() {
    let at = tempfile::tempdir().unwrap();
    let (first, second) = (at.path().join("first"), at.path().join("second"));
    init(&first);
    let giver = Node::start(&first, &[]);
    giver.admit(&second, "till").await;
    let (_, opened) = giver.post("/api/shifts", &json!({ "float_minor": 50_000 })).await;
    let shift = opened["id"].as_str().unwrap().to_owned();
    giver.sell("before").await;
    let receiver = Node::start(&second, &["--peer", &giver.addresses[0]]);
    receiver.until_sales(1).await;

    let offered = command(&first, &["handoff", "offer", "--to", "till", "--counted", "565"]).await.unwrap();
    let id = offered["id"].as_str().unwrap().to_owned();
    let frozen = command(&first, &["sale", "--line", "BREAD:1:65"]).await.unwrap_err();
    assert!(frozen.contains("shift_frozen"), "{frozen}");
    let path = format!("/api/handoffs/{id}");
    receiver.until(&path, |handoff| handoff["status"] == "offered" && handoff["missing"] == 0).await;
    giver.kill();

    let accepted = command(&second, &["handoff", "accept"]).await.unwrap();
    assert_eq!(accepted["status"], "accepted");
    let giver = Node::start(&first, &[]);
    assert_eq!(giver.get(&path).await.1["status"], "offered", "it has not heard of it");
    // Another address than before: the receiver has to be told.
    receiver.kill();
    let receiver = Node::start(&second, &["--peer", &giver.addresses[0]]);
    receiver.until(&path, |handoff| handoff["status"] == "completed").await;
    receiver.sell("after").await;
    let report = receiver.get(&format!("/api/reports/z?shift={shift}")).await.1;
    assert_eq!(report["shift"]["cash_expected_minor"], 50_000 + 2 * 6_500);
    giver.until(&path, |handoff| handoff["status"] == "completed").await;
    let listed = command(&first, &["handoff", "list"]).await.unwrap();
    assert_eq!(listed[0]["role"], "giver");
    assert_eq!(command(&first, &["handoff", "list", "--open"]).await.unwrap(), json!([]));

    // What the first device holds is at the second one now, which has signed for it.
    let verdict = command(&first, &["safe-to-wipe"]).await.unwrap();
    assert_eq!(verdict["only_here"], 0, "{verdict}");
    assert_eq!(verdict["reasons"], json!(["not_at_relay", "owner_key"]));
}
