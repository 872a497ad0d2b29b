//! A shop with a server of its own, which misbehaves: what tills recorded reaches it once, in
//! order, and what contradicts it goes to a person.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::node::{Node, init, sale, text};
use crate::upstream_server::{Upstream, Whim};

/// A till that carries to the server itself what it records.
pub(crate) async fn till_with(server: &Upstream, at: &Path, more: &str) -> Node {
    let (folder, file) = (at.join("till"), at.join("upstream.toml"));
    std::fs::write(&file, server.file(more)).unwrap();
    if !folder.exists() {
        init(&folder);
    }
    Node::start(&folder, &["--upstream", text(&file)])
}

pub(crate) async fn patch(node: &Node, path: &str, body: &Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.patch(format!("{}{path}", node.api)).json(body).send().await.unwrap();
    assert!(answer.status().is_success(), "PATCH {path}: {}", answer.text().await.unwrap());
}

pub(crate) async fn post(node: &Node, path: &str, body: &Value) -> Value {
    let (status, answer) = node.post(path, body).await;
    assert!(status.is_success(), "POST {path} {body}: {status} {answer}");
    answer
}

/// Queues an operation of the app's own.
pub(crate) async fn queue(node: &Node, id: &str, method: &str, endpoint: &str, body: Value, more: Value) -> String {
    let mut request = json!({
        "operation_id": id, "operation_type": "loyalty", "method": method, "endpoint": endpoint, "request_body": body,
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        request[name] = value.clone();
    }
    post(node, "/api/offline/queue", &request).await["id"].as_str().unwrap().to_owned()
}

pub(crate) async fn until_synced(node: &Node, total: u64) -> Value {
    node.until("/api/offline/status", |status| status["synced"] == json!(total)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_sales_person_comes_back_with_23_operations() {
    let server = Upstream::start(true).await;
    let at = tempfile::tempdir().unwrap();
    let till = till_with(&server, at.path(), "").await;
    patch(&till, "/api/offline/config", &json!({ "auto_sync_enabled": false })).await;
    server.put("p-7", json!({ "id": "p-7", "name": "Bread", "price": 65 }));

    for number in 0..15 {
        till.sell(&format!("sale-{number}")).await;
    }
    for number in 0..4 {
        let expense = json!({ "operation_id": format!("expense-{number}"), "category": "fuel", "amount_minor": 500 });
        post(&till, "/api/expenses", &expense).await;
    }
    let adjustment = json!({ "operation_id": "stock-1", "sku": "BREAD", "quantity_milli": -1000, "reason": "sample" });
    post(&till, "/api/stock/adjustments", &adjustment).await;
    queue(&till, "visit-1", "POST", "/api/visits", json!({ "shop": "Kiosk" }), json!({})).await;
    queue(&till, "visit-2", "POST", "/api/visits", json!({ "shop": "Duka" }), json!({})).await;
    let stale = json!({ "base": { "id": "p-7", "name": "Bread", "price": 65 }, "base_etag": "\"1\"" });
    queue(&till, "price", "PATCH", "/api/products/p-7", json!({ "price": 70 }), stale).await;
    server.change("p-7", "price", json!(75));
    server.misbehave("sale-3", [Whim::Status(422, json!({ "code": "closed_day", "detail": "the day is closed" }))]);
    server.misbehave("visit-2", [Whim::Status(400, json!({ "code": "no_such_shop" }))]);

    let waiting = till.get("/api/offline/status").await.1;
    assert_eq!(waiting["pending"], 23, "{waiting}");
    let summary = post(&till, "/api/offline/sync", &json!({})).await;
    assert!(summary["durationMs"].is_u64());
    let counts = ["success", "failed", "conflict", "total"].map(|name| summary[name].as_u64().unwrap());
    assert_eq!(counts, [20, 2, 1, 23], "{summary}");
    let status = till.get("/api/offline/status").await.1;
    assert_eq!((status["failed"].clone(), status["conflicts"].clone()), (json!(2), json!(1)), "{status}");

    let failed = till.get("/api/offline/pending?status=failed").await.1;
    let refused = failed["items"].as_array().unwrap().iter().find(|one| one["operation_id"] == "sale-3").unwrap();
    assert_eq!(refused["last_error"]["class"], "VALIDATION");
    assert_eq!(refused["last_error"]["code"], "closed_day");

    let conflicts = till.get("/api/conflicts").await.1;
    let conflict = &conflicts["items"][0];
    assert_eq!(
        (conflict["kind"].clone(), conflict["upstream"]["disputed"].clone()),
        (json!("upstream"), json!(["price"]))
    );
    assert_eq!(conflict["upstream"]["conflict_type"], "VERSION_MISMATCH");
    let resolve = format!("/api/conflicts/{}/resolve", conflict["id"].as_str().unwrap());
    post(&till, &resolve, &json!({ "fields": { "price": 72 }, "note": "agreed on the phone" })).await;
    assert_eq!(post(&till, "/api/offline/retry", &json!({})).await["retried"], 2);
    let summary = post(&till, "/api/offline/sync", &json!({})).await;
    assert_eq!((summary["success"].clone(), summary["total"].clone()), (json!(3), json!(3)), "{summary}");
    let status = till.get("/api/offline/status").await.1;
    assert_eq!((status["synced"].clone(), status["total"].clone()), (status["total"].clone(), json!(23)), "{status}");
    assert_eq!(server.record("p-7").value["price"], 72);
    let decided = till.get("/api/conflicts?all=true").await.1;
    assert_eq!(decided["items"][0]["history"][0]["note"], "agreed on the phone");
    for (operation, times) in server.taken_all() {
        assert_eq!(times, 1, "{operation}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_of_misbehaving_is_borne() {
    let server = Upstream::start(true).await;
    let at = tempfile::tempdir().unwrap();
    let till = till_with(&server, at.path(), "").await;
    server.misbehave("fails-twice", [Whim::Status(500, json!({})), Whim::Status(502, json!({}))]);
    server.misbehave("silent", [Whim::SilentAfterCommit]);
    server.misbehave("busy", [Whim::RetryAfter(429, 1)]);
    server.misbehave("elsewhere", [Whim::Redirect("http://169.254.169.254/latest/meta-data/")]);
    server.misbehave("slow", [Whim::Slow(Duration::from_millis(100))]);
    server.misbehave("always", std::iter::repeat_n(Whim::Status(500, json!({})), 20));
    for id in ["fails-twice", "silent", "busy", "elsewhere", "slow", "always", "plain"] {
        queue(&till, id, "POST", "/api/visits", json!({ "of": id }), json!({})).await;
    }
    until_synced(&till, 5).await;
    let status = till.until("/api/offline/status", |status| status["failed"] == json!(2)).await;
    assert_eq!(status["pending"], 0, "{status}");
    for done in ["fails-twice", "silent", "busy", "slow", "plain"] {
        assert_eq!(server.taken(done), 1, "{done}");
    }
    let history = till.get("/api/offline/history/always").await.1;
    assert_eq!((history["result"].clone(), history["operation"]["sync_attempts"].clone()), (json!("failed"), json!(3)));
    assert_eq!(history["operation"]["last_error"]["class"], "SERVER_ERROR");
    let history = till.get("/api/offline/history/elsewhere").await.1;
    assert_eq!(history["operation"]["last_error"]["code"], "redirect");
    let history = till.get("/api/offline/history/silent").await.1;
    assert_eq!(history["result"], "partial", "{history}");
    assert_eq!(history["attempts"][0]["error"]["code"], "timeout");
    // Nothing that failed is forgotten, and a wish tries it again.
    assert_eq!(post(&till, "/api/offline/retry", &json!({ "id": "elsewhere" })).await["retried"], 1);
    until_synced(&till, 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_conflict_with_the_server_is_decided_by_rule_or_by_a_person() {
    let server = Upstream::start(true).await;
    let at = tempfile::tempdir().unwrap();
    let till = till_with(&server, at.path(), "").await;
    let base = json!({ "name": "Bread", "price": 65 });
    for id in ["merged", "ours", "theirs", "gone", "manual"] {
        server.put(id, json!({ "id": id, "name": "Bread", "price": 65 }));
        server.change(id, "name", json!("White bread"));
    }
    server.delete("gone");
    let edit = async |id: &str, strategy: &str| {
        let more = json!({ "base": base, "base_etag": "\"1\"", "resolution_strategy": strategy });
        queue(&till, id, "PATCH", &format!("/api/products/{id}"), json!({ "price": 70 }), more).await
    };
    edit("merged", "merge").await;
    edit("ours", "client_wins").await;
    edit("theirs", "server_wins").await;
    let gone = edit("gone", "merge").await;
    let manual = edit("manual", "manual").await;
    until_synced(&till, 3).await;
    let merged = server.record("merged").value;
    assert_eq!((merged["name"].clone(), merged["price"].clone()), (json!("White bread"), json!(70)));
    assert_eq!(server.record("ours").value["price"], 70);
    assert_eq!(server.record("theirs").value["price"], 65);
    let view = |id: &str| format!("/api/offline/history/{id}");
    assert_eq!(till.get(&view("theirs")).await.1["operation"]["resolution_strategy"], "server_wins");

    let status = till.until("/api/offline/status", |status| status["conflicts"] == json!(2)).await;
    assert_eq!(status["failed"], 0, "{status}");
    let conflict_of = async |id: &str| {
        let operation = till.get(&view(id)).await.1["operation"].clone();
        (operation["conflict_type"].clone(), operation["conflict_id"].as_str().unwrap().to_owned())
    };
    let (kind, conflict) = conflict_of(&gone).await;
    assert_eq!(kind, "DELETED");
    post(&till, &format!("/api/conflicts/{conflict}/resolve"), &json!({ "choice": "server" })).await;
    let (kind, conflict) = conflict_of(&manual).await;
    assert_eq!(kind, "VERSION_MISMATCH");
    // Two opposite words: the later one counts, at the server too.
    post(&till, &format!("/api/conflicts/{conflict}/resolve"), &json!({ "choice": "server" })).await;
    until_synced(&till, 5).await;
    assert_eq!(server.record("manual").value["price"], 65);
    post(&till, &format!("/api/conflicts/{conflict}/resolve"), &json!({ "choice": "client" })).await;
    till.until(&view("manual"), |seen| seen["operation"]["resolution_strategy"] == "client_wins").await;
    assert_eq!(server.record("manual").value["price"], 70);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn temporary_ids_become_the_servers_and_a_record_keeps_its_order() {
    let server = Upstream::start(true).await;
    let at = tempfile::tempdir().unwrap();
    let till = till_with(&server, at.path(), "").await;
    server.misbehave("tmp-1", [Whim::Status(503, json!({})), Whim::Status(503, json!({}))]);
    queue(&till, "tmp-1", "POST", "/api/customers", json!({ "name": "Amina" }), json!({})).await;
    queue(&till, "edit-1", "PATCH", "/api/customers/tmp-1", json!({ "name": "Amina O." }), json!({})).await;
    queue(&till, "edit-2", "PATCH", "/api/customers/tmp-1", json!({ "name": "Amina Otieno" }), json!({})).await;
    let order = json!({ "customer_id": "tmp-1", "note": "tmp-1" });
    queue(&till, "order-1", "POST", "/api/orders", order, json!({})).await;
    queue(&till, "other", "POST", "/api/visits", json!({}), json!({})).await;
    let sale_id = till.sell("sale-1").await;
    let void = json!({ "reason": "mistake" });
    post(&till, &format!("/api/sales/{sale_id}/void"), &void).await;
    until_synced(&till, 7).await;
    let order: Vec<String> = server.order();
    let at = |id: &str| order.iter().position(|one| one == id).unwrap();
    assert!(at("tmp-1") < at("edit-1") && at("edit-1") < at("edit-2") && at("tmp-1") < at("order-1"), "{order:?}");
    assert!(at("other") < at("tmp-1"), "a failing operation held up another record: {order:?}");
    let customer =
        till.get("/api/offline/history/tmp-1").await.1["operation"]["server_id"].as_str().unwrap().to_owned();
    assert_eq!(server.record(&customer).value["name"], "Amina Otieno");
    let placed =
        till.get("/api/offline/history/order-1").await.1["operation"]["server_id"].as_str().unwrap().to_owned();
    let placed = server.record(&placed).value;
    assert_eq!((placed["customer_id"].clone(), placed["note"].clone()), (json!(customer), json!("tmp-1")));
    let sold = till.get("/api/offline/history/sale-1").await.1["operation"]["server_id"].as_str().unwrap().to_owned();
    assert!(server.seen().contains(&("POST".to_owned(), format!("/api/sales/{sold}/void"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_carries_for_its_tills_and_they_learn_what_became_of_it() {
    let server = Upstream::start(true).await;
    let at = tempfile::tempdir().unwrap();
    let (till_folder, relay_folder, file) =
        (at.path().join("till"), at.path().join("relay"), at.path().join("up.toml"));
    std::fs::write(&file, server.file("")).unwrap();
    init(&till_folder);
    let till = Node::start(&till_folder, &[]);
    till.admit(&relay_folder, "relay").await;
    server.misbehave("bad", [Whim::Status(422, json!({ "code": "bad" }))]);
    for id in ["a", "b", "bad"] {
        post(&till, "/api/sales", &sale(id)).await;
    }
    let relay = Node::start_as("relay", &relay_folder, &["--upstream", text(&file), "--peer", &till.addresses[0]]);
    let status = till
        .until("/api/offline/status", |status| status["destination"] == "upstream" && status["failed"] == json!(1))
        .await;
    assert_eq!(status["pending"], 0, "{status}");
    let view = till.get("/api/offline/history/a").await.1;
    assert_eq!(view["operation"]["status"], "synced", "{view}");
    assert!(view["operation"]["server_id"].as_str().unwrap().starts_with("s-"));
    // The person at the till wants it tried again; the relay hears of that.
    post(&till, "/api/offline/retry", &json!({ "id": "bad" })).await;
    till.until("/api/offline/status", |status| status["failed"] == json!(0) && status["pending"] == json!(0)).await;
    assert_eq!(server.taken("bad"), 1);
    let everybody = relay.get("/api/offline/status").await.1;
    assert_eq!((everybody["synced"].clone(), everybody["total"].clone()), (json!(3), json!(3)), "{everybody}");
    // The chain of the relay's calls is anchored in its journal, which the till holds and signs for.
    let proven = relay.until("/api/audit/verify", |said| said["proven_through"].as_u64() > Some(0)).await;
    assert_eq!((proven["ok"].clone(), proven["held_by"].as_array().unwrap().len()), (json!(true), 1), "{proven}");
    // The server takes its time, or the relay would have delivered it before the till asks.
    server.misbehave("e", [Whim::Slow(Duration::from_secs(1))]);
    let expense = json!({ "operation_id": "e", "category": "fuel", "amount_minor": 500 });
    post(&till, "/api/expenses", &expense).await;
    let summary = post(&till, "/api/offline/sync", &json!({})).await;
    assert_eq!((summary["success"].clone(), summary["total"].clone()), (json!(1), json!(1)), "{summary}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_gets_everything_and_a_closed_door_uses_up_no_try() {
    let server = Upstream::start(true).await;
    let at = tempfile::tempdir().unwrap();
    let folder = at.path().join("till");
    init(&folder);
    let file = at.path().join("upstream.toml");
    // Nobody listens on this port of the same machine.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    std::fs::write(&file, server.file("").replace(&server.address.to_string(), &free.to_string())).unwrap();
    let till = Node::start(&folder, &["--upstream", text(&file)]);
    for number in 0..12 {
        till.sell(&format!("sale-{number}")).await;
    }
    let away = till.until("/api/offline/status", |status| status["schedule"]["waits_for"] == "server_away").await;
    assert_eq!((away["failed"].clone(), away["synced"].clone()), (json!(0), json!(0)), "{away}");
    assert!(away["schedule"]["until"].is_string());
    let folder = till.kill();
    std::fs::write(&file, server.file("")).unwrap();
    let till = Node::start(&folder, &["--upstream", text(&file)]);
    until_synced(&till, 12).await;
    assert!(server.taken_all().values().all(|times| *times == 1));

    server.misbehave("locked", [Whim::Status(401, json!({}))]);
    till.sell("locked").await;
    let closed = till.until("/api/offline/status", |status| status["schedule"]["waits_for"] == "not_let_in").await;
    assert_eq!((closed["failed"].clone(), closed["pending"].clone()), (json!(0), json!(1)), "{closed}");
    assert_eq!(post(&till, "/api/offline/sync", &json!({})).await["success"], 1);
}
