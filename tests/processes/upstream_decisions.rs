//! Conflicts with the shop's server that nobody can foresee: records that it has already, and two
//! people who decide apart.

use serde_json::{Value, json};

use crate::node::{Node, init, text};
use crate::upstream::{post, queue, till_with, until_synced};
use crate::upstream_server::{Upstream, Whim};

fn duplicate_of(id: &str) -> Whim {
    Whim::Status(409, json!({ "code": "duplicate", "id": id }))
}

async fn operation(node: &Node, id: &str) -> Value {
    node.get(&format!("/api/offline/history/{id}")).await.1["operation"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_has_already_goes_as_the_strategy_says() {
    // It honours no key, and finds duplicates by itself.
    let server = Upstream::start(false).await;
    let at = tempfile::tempdir().unwrap();
    let till = till_with(&server, at.path(), "").await;
    for id in ["c-ours", "c-theirs", "c-same", "c-apart", "c-person"] {
        server.put(id, json!({ "id": id, "name": "Amina", "phone": "0700" }));
    }
    let customers = [
        ("ours", "client_wins", json!({ "name": "Amina O.", "phone": "0700" })),
        ("theirs", "server_wins", json!({ "name": "Amina O.", "phone": "0700" })),
        ("same", "merge", json!({ "name": "Amina", "town": "Thika" })),
        ("apart", "merge", json!({ "name": "Amina O.", "town": "Thika" })),
        ("person", "manual", json!({ "name": "Amina" })),
    ];
    for (id, strategy, body) in customers {
        server.misbehave(id, [duplicate_of(&format!("c-{id}"))]);
        queue(&till, id, "POST", "/api/customers", body, json!({ "resolution_strategy": strategy })).await;
    }
    // The server took it, nobody heard of that, and the second call finds the first one's record.
    server.misbehave("lost", [Whim::SilentAfterCommit, duplicate_of("s-1")]);
    queue(&till, "lost", "POST", "/api/visits", json!({ "shop": "Kiosk" }), json!({})).await;

    until_synced(&till, 4).await;
    till.until("/api/offline/status", |status| status["conflicts"] == json!(2)).await;
    assert_eq!(server.record("c-ours").value["name"], "Amina O.");
    assert_eq!(server.record("c-theirs").value["name"], "Amina");
    let same = server.record("c-same").value;
    assert_eq!((same["phone"].clone(), same["town"].clone()), (json!("0700"), json!("Thika")), "both sides: {same}");
    for (id, server_id, strategy) in
        [("ours", "c-ours", "client_wins"), ("theirs", "c-theirs", "server_wins"), ("same", "c-same", "merge")]
    {
        let seen = operation(&till, id).await;
        let found = (seen["status"].clone(), seen["server_id"].clone(), seen["resolution_strategy"].clone());
        assert_eq!(found, (json!("synced"), json!(server_id), json!(strategy)), "{seen}");
    }
    for id in ["apart", "person"] {
        let seen = operation(&till, id).await;
        assert_eq!((seen["status"].clone(), seen["conflict_type"].clone()), (json!("conflict"), json!("DUPLICATE")));
    }
    assert_eq!(operation(&till, "apart").await["conflict_data"]["disputed"], json!(["name"]));
    let lost = operation(&till, "lost").await;
    assert_eq!((lost["status"].clone(), lost["conflict_type"].clone()), (json!("synced"), json!(null)), "{lost}");
    assert_eq!((lost["server_id"].clone(), server.taken("lost")), (json!("s-1"), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_who_decide_apart_end_with_one_decision_and_so_does_the_server() {
    let server = Upstream::start(true).await;
    let at = tempfile::tempdir().unwrap();
    let folder = |name: &str| at.path().join(name);
    let file = folder("up.toml");
    std::fs::write(&file, server.file("")).unwrap();
    init(&folder("first"));
    let first = Node::start(&folder("first"), &[]);
    first.admit(&folder("second"), "till").await;
    first.admit(&folder("relay"), "relay").await;
    let second = Node::start(&folder("second"), &[]);
    let relay = |first: &Node, second: &Node| {
        let peers = ["--upstream", text(&file), "--peer", &first.addresses[0], "--peer", &second.addresses[0]];
        Node::start_as("relay", &folder("relay"), &peers)
    };
    server.put("p-1", json!({ "id": "p-1", "price": 65 }));
    server.change("p-1", "price", json!(75));
    let more = json!({ "base": { "price": 65 }, "base_etag": "\"1\"", "resolution_strategy": "manual" });
    queue(&first, "price", "PATCH", "/api/products/p-1", json!({ "price": 70 }), more).await;
    let running = relay(&first, &second);
    let open = |all: &Value| all["items"].as_array().is_some_and(|items| items.len() == 1);
    let listed = second.until("/api/conflicts", open).await;
    let conflict = listed["items"][0]["id"].as_str().unwrap().to_owned();
    first.until("/api/conflicts", open).await;

    // Each till is alone when its person decides: neither hears of the other's word.
    running.kill();
    second.kill();
    let resolve = format!("/api/conflicts/{conflict}/resolve");
    let choice = |all: &Value| all["items"][0]["resolution"]["choice"].clone();
    post(&first, &resolve, &json!({ "choice": "server" })).await;
    assert_eq!(choice(&first.get("/api/conflicts?all=true").await.1), "server");
    first.kill();
    let second = Node::start(&folder("second"), &[]);
    post(&second, &resolve, &json!({ "choice": "client" })).await;
    let first = Node::start(&folder("first"), &[]);

    let running = relay(&first, &second);
    for node in [&first, &second, &running] {
        let both = |all: &Value| all["items"][0]["history"].as_array().is_some_and(|words| words.len() == 2);
        let seen = node.until("/api/conflicts?all=true", both).await;
        assert_eq!(choice(&seen), "client", "the later word counts everywhere: {seen}");
    }
    running.until("/api/offline/status", |status| status["synced"] == json!(1)).await;
    first
        .until("/api/offline/history/price", |seen| seen["operation"]["resolution_strategy"] == json!("client_wins"))
        .await;
    assert_eq!(server.record("p-1").value["price"], 70);
}
