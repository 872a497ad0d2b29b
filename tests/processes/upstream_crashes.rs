//! The carrier is killed again and again while it sends: nothing is lost, and a server that honours
//! keys gets nothing twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::node::{Node, init, text};
use crate::upstream_server::Upstream;

/// A share of the 200 that `TILLMESH_KILLS=200` makes.
const KILLS_DEFAULT: u64 = 25;
const OPERATIONS_A_ROUND: u64 = 4;
/// What an operation and its call take in steps of the server, at most.
const STEPS_MAX: u64 = 2 * OPERATIONS_A_ROUND;

fn kills() -> u64 {
    std::env::var("TILLMESH_KILLS").ok().map_or(KILLS_DEFAULT, |kills| kills.parse().unwrap())
}

/// Kills a till again and again; gives how often each operation was done at the server.
async fn killed_all_the_time(server: &Upstream, at: &Path, more: &str) -> (Node, BTreeMap<String, u64>) {
    let (folder, file) = (at.join("till"), at.join("upstream.toml"));
    std::fs::write(&file, server.file(more)).unwrap();
    init(&folder);
    server.take_time(Duration::from_millis(2));
    let mut seed = u64::from(std::process::id()) | 1;
    println!("seed {seed}");
    for round in 0..kills() {
        let till = Node::start(&folder, &["--upstream", text(&file)]);
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let watched = server.clone();
        let steps = 1 + seed % STEPS_MAX;
        let reached = tokio::spawn(async move { watched.after_steps(steps).await });
        for number in 0..OPERATIONS_A_ROUND {
            till.sell(&format!("{round}-{number}")).await;
        }
        // What is left from the round before goes too, so there are always enough steps; a
        // round that has nothing left is killed when it has sent everything.
        tokio::select! {
            reached = reached => reached.unwrap(),
            _ = till.until("/api/offline/status", |status| status["pending"] == 0 && status["syncing"] == 0) => {}
        }
        till.kill();
    }
    let till = Node::start(&folder, &["--upstream", text(&file)]);
    let all = json!(kills() * OPERATIONS_A_ROUND);
    till.until("/api/offline/status", |status| status["synced"] == all && status["total"] == all).await;
    let taken = server.taken_all();
    assert_eq!(taken.len() as u64, kills() * OPERATIONS_A_ROUND, "an operation is lost");
    (till, taken)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_honours_keys_gets_everything_once_however_often_the_carrier_is_killed() {
    let server = Upstream::start(true).await;
    let at = tempfile::tempdir().unwrap();
    let (_till, taken) = killed_all_the_time(&server, at.path(), "").await;
    for (operation, times) in taken {
        assert_eq!(times, 1, "{operation}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_gets_at_most_the_one_in_flight_twice_and_a_person_is_told() {
    let server = Upstream::start(false).await;
    let at = tempfile::tempdir().unwrap();
    let (till, taken) = killed_all_the_time(&server, at.path(), "honours_key = false").await;
    let twice: u64 = taken.values().map(|times| times - 1).sum();
    println!("{twice} done twice in {} kills", kills());
    assert!(twice <= kills(), "{twice} done twice");
    for (operation, _) in taken.iter().filter(|(_, times)| **times > 1) {
        let (_, seen) = till.get(&format!("/api/offline/history/{operation}")).await;
        assert_eq!(seen["operation"]["maybe_twice"], true, "{operation} is not reported: {seen}");
        assert!(seen["attempts"].as_array().unwrap().iter().any(|call| call["result"] == "cut_off"), "{seen}");
    }
}
