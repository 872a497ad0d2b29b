//! Acknowledged means durable, whenever the plug is pulled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::node::{Node, init, sale};

const ROUNDS: u64 = 6;
const CALLERS: u64 = 4;

/// Sells until the node is gone; gives the ids that were acknowledged.
async fn sell_until_gone(api: String, caller: u64, round: u64, gone: Arc<AtomicBool>) -> Vec<String> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let body = sale(&format!("{round}-{caller}-{number}"));
        let Ok(response) = client.post(format!("{api}/api/sales")).json(&body).send().await else { break };
        let Ok(answer) = response.json::<serde_json::Value>().await else { break };
        acknowledged.push(answer["id"].as_str().unwrap().to_owned());
        if gone.load(Ordering::Relaxed) {
            break;
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_sale_survives_kill_9_in_a_loop() {
    let at = tempfile::tempdir().unwrap();
    let folder = at.path().join("till");
    init(&folder);
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let node = Node::start(&folder, &[]);
        let gone = Arc::new(AtomicBool::new(false));
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| tokio::spawn(sell_until_gone(node.api.clone(), caller, round, Arc::clone(&gone))))
            .collect();
        // The plug is pulled in the middle of the selling, each round a little later.
        node.until("/api/books", |books| books["sales"].as_u64() >= Some(acknowledged.len() as u64 + 20 + round * 15))
            .await;
        node.kill();
        gone.store(true, Ordering::Relaxed);
        for caller in callers {
            acknowledged.extend(caller.await.unwrap());
        }
    }
    assert!(acknowledged.len() as u64 >= ROUNDS * 20, "only {} sales were tried", acknowledged.len());
    let node = Node::start(&folder, &[]);
    for id in &acknowledged {
        let (status, _) = node.get(&format!("/api/sales/{id}")).await;
        assert_eq!(status, 200, "the acknowledged sale {id} is lost");
    }
    let held = node.sales().await;
    assert!(held >= acknowledged.len() as u64);
    // Sales whose answer was cut off may be there too, at most one a caller and round.
    assert!(held <= acknowledged.len() as u64 + ROUNDS * CALLERS, "{held} held");
}
