//! The queue of a node inside another program, from the first operation to the last, against a
//! server that misbehaves.

use std::time::Duration;

use crdt_model::document::FieldValue;
use crdt_model::money::Currency;
use crdt_model::record::{Custom, Source, Strategy, UpstreamConflict};
use serde_json::{Value, json};

use super::{
    Choice, ChoiceRefused, ConfigRefused, Decision, Destination, Filter, HistoryResult, QueueError, QueueStatus, Wrong,
};
use crate::node::{Node, NodeConfig};
use crate::upstream::UpstreamConfig;
use crate::upstream_server::{Upstream, Whim};

const APP: &str = "app";

fn visit(key: &str) -> Custom {
    operation(key, "POST", "/api/visits", &json!({ "shop": "Kiosk" }))
}

fn operation(key: &str, method: &str, path: &str, body: &Value) -> Custom {
    Custom {
        source: Some(Source { instance: APP.to_owned(), key: key.to_owned() }),
        operation_type: "visit".to_owned(),
        method: method.to_owned(),
        path: path.to_owned(),
        body: body.to_string(),
        ..Custom::default()
    }
}

async fn node(at: &std::path::Path, server: Option<&Upstream>) -> Node {
    if !at.exists() {
        crate::folder::found(at, "Duka", Currency::KES, 180, "phone", crate::shop_loop::now()).unwrap();
    }
    let mut config = NodeConfig::new(at);
    config.upstream = server.map(|server| {
        let mut way = UpstreamConfig::new(format!("http://{}", server.address).parse().unwrap());
        way.allow_loopback = true;
        way.backoff_base_ms = 20;
        way
    });
    Node::start(config).await.unwrap()
}

fn statuses(filter: &[QueueStatus]) -> Filter {
    Filter { statuses: filter.to_vec(), ..Filter::default() }
}

#[tokio::test]
async fn an_app_with_the_node_inside_queues_sends_decides_and_cleans_up() {
    let at = tempfile::tempdir().unwrap();
    let server = Upstream::start(true).await;
    let node = node(&at.path().join("phone"), Some(&server)).await;
    let queue = node.queue();
    let off = [("auto_sync_enabled".to_owned(), Some(FieldValue::Bool(false)))];
    queue.update_config(off.into_iter().collect()).await.unwrap();
    assert!(!queue.config().await.unwrap().auto_sync_enabled);

    server.put("p-1", json!({ "id": "p-1", "price": 65 }));
    server.change("p-1", "price", json!(75));
    server.misbehave("bad", [Whim::Status(422, json!({ "code": "no_such_shop" }))]);
    queue.add(visit("good"), Some("amina".to_owned())).await.unwrap();
    let bad = queue.add(visit("bad"), None).await.unwrap();
    assert!(queue.add(visit("bad"), None).await.unwrap().repeated, "the same source is the same operation");
    let mut price = operation("price", "PATCH", "/api/products/p-1", &json!({ "price": 70 }));
    (price.base, price.base_tag) = (Some(json!({ "id": "p-1", "price": 65 }).to_string()), Some("\"1\"".to_owned()));
    price.strategy = Some(Strategy::Manual);
    let price = queue.add(price, None).await.unwrap().records[0];

    let now = queue.status().await.unwrap();
    assert_eq!((now.of(QueueStatus::Pending), now.total(), now.destination), (3, 3, Destination::Upstream));
    assert_eq!(now.schedule.waits_for, "paused");
    let page = queue.operations(&statuses(&[QueueStatus::Pending]), 2, None).await.unwrap().unwrap();
    let next = queue.operations(&statuses(&[QueueStatus::Pending]), 2, page.next.as_deref()).await.unwrap().unwrap();
    assert_eq!((page.items.len(), next.items.len(), next.next), (2, 1, None));
    assert_eq!(page.items[0].row.recorded.as_ref().unwrap().user.as_deref(), Some("amina"));
    assert!(queue.operations(&Filter::default(), 2, Some("nonsense")).await.unwrap().is_none());

    let one = queue.sync_one(APP, "good", Duration::ZERO).await.unwrap();
    assert_eq!((one.success, one.total), (1, 1));
    assert_eq!(server.seen().len(), 1, "only the one that was asked for");
    let (first, second) = tokio::join!(queue.sync(Duration::ZERO), queue.sync(Duration::ZERO));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.success, first.failed, first.conflict, first.total), (0, 1, 1, 2));
    assert_eq!(first, second, "whoever asks meanwhile joins");

    let history = queue.history(APP, "bad").await.unwrap();
    assert_eq!((history.result, history.attempts.len()), (HistoryResult::Failed, 1));
    assert_eq!(history.attempts[0].http_status, Some(422));
    assert_eq!(queue.retry(Some(bad.records[0])).await.unwrap(), 1);
    assert_eq!(queue.sync(Duration::ZERO).await.unwrap().success, 1);
    let history = queue.history(APP, &bad.records[0].to_string()).await.unwrap();
    assert_eq!((history.result, history.operation.status), (HistoryResult::Partial, Some(QueueStatus::Synced)));

    let opposed = queue.conflict(price).await.unwrap().unwrap();
    assert_eq!(opposed.kind, UpstreamConflict::VersionMismatch);
    let fields = Some(json!({ "price": 72 }).to_string());
    let wrong = Decision { choice: Choice::Client, fields: fields.clone(), note: None };
    let refused = queue.resolve_conflict(opposed.conflict, wrong).await.unwrap_err();
    assert!(matches!(refused, QueueError::Choice(ChoiceRefused::FieldsWithoutMerge)));
    assert!(matches!(
        queue.resolve_conflict(price, Decision { choice: Choice::Server, fields: None, note: None }).await,
        Err(QueueError::NotFound(_))
    ));
    queue.resolve_conflict(opposed.conflict, Decision { choice: Choice::Merge, fields, note: None }).await.unwrap();
    queue.sync(Duration::ZERO).await.unwrap();
    assert_eq!(server.record("p-1").value["price"], 72);
    assert_eq!(queue.conflict(price).await.unwrap(), None);

    let done = queue.status().await.unwrap();
    assert_eq!((done.of(QueueStatus::Synced), done.schedule.waits_for), (3, "idle"));
    assert_eq!(queue.clear_synced(Duration::from_secs(3_600)).await.unwrap(), 0, "they are not that old");
    assert_eq!(queue.clear_synced(Duration::ZERO).await.unwrap(), 3);
    assert!(matches!(queue.find(APP, "never").await, Err(QueueError::NotFound(_))));
    // What the server calls the first visit is still known.
    queue.add(operation("later", "PATCH", "/api/visits/good", &json!({ "shop": "Duka" })), None).await.unwrap();
    assert_eq!(queue.sync(Duration::ZERO).await.unwrap().success, 1);
    assert_eq!(server.record("s-1").value["shop"], "Duka");
    node.stop().await.unwrap();
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_change_of_the_config_is_told_at_once() {
    let at = tempfile::tempdir().unwrap();
    let node = node(&at.path().join("phone"), None).await;
    let changes = [
        ("max_retries", FieldValue::Int(0)),
        ("compress", FieldValue::Bool(true)),
        ("max_retrys", FieldValue::Int(3)),
        ("upstream_relay", FieldValue::Bool(true)),
    ];
    let changes = changes.into_iter().map(|(name, value)| (name.to_owned(), Some(value)));
    let refused = node.queue().update_config(changes.collect()).await.unwrap_err();
    let QueueError::Config(ConfigRefused(refused)) = refused else { panic!("{refused}") };
    let told: Vec<_> = refused.iter().map(|refused| (refused.field.as_str(), refused.wrong)).collect();
    let expected = [("max_retries", Wrong::Value), ("max_retrys", Wrong::Name), ("upstream_relay", Wrong::Type)];
    assert_eq!(told, expected);
    assert!(!node.queue().config().await.unwrap().compress, "all or nothing");
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_shop_without_a_server_has_its_queue_at_the_relay() {
    let at = tempfile::tempdir().unwrap();
    let node = node(&at.path().join("phone"), None).await;
    let queue = node.queue();
    let added = queue.add(visit("a"), None).await.unwrap();
    let now = queue.status().await.unwrap();
    assert_eq!((now.destination, now.schedule.waits_for), (Destination::Relay, "relay"));
    let listed = queue.operations(&statuses(&[QueueStatus::Pending]), 1, None).await.unwrap().unwrap();
    assert_eq!((listed.items[0].id, listed.items[0].status), (added.records[0], Some(QueueStatus::Pending)));
    let number = added.place.unwrap().seq.to_string();
    for name in ["a", &number, &added.records[0].to_string()] {
        assert_eq!(queue.find(APP, name).await.unwrap().id, added.records[0], "{name}");
    }
    let history = queue.history(APP, "a").await.unwrap();
    assert_eq!((history.result, history.attempts.len()), (HistoryResult::Nothing, 0));
    assert_eq!((queue.retry(None).await.unwrap(), queue.clear_synced(Duration::ZERO).await.unwrap()), (0, 0));
    node.stop().await.unwrap();
}
