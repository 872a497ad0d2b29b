//! A service of a shop's own behind the layers: it passes requests on to the server, which goes
//! away and comes back.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Json};
use crdt_model::document::FieldValue;
use crdt_model::money::Currency;
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};

use super::{AddCapabilities, CheckOffline, DeviceStatus, QueueOnFailure, RequireOnline, TrackDevice};
use crate::node::{Node, NodeConfig};
use crate::queue::QueueStatus;
use crate::upstream::UpstreamConfig;
use crate::upstream_server::{Upstream, Whim};

struct Shop {
    node: Node,
    server: Upstream,
    _at: tempfile::TempDir,
}

/// A node that carries to a server, which sends nothing by itself.
async fn shop() -> Shop {
    let at = tempfile::tempdir().unwrap();
    let server = Upstream::start(true).await;
    let folder = at.path().join("phone");
    crate::folder::found(&folder, "Duka", Currency::KES, 180, "phone", crate::shop_loop::now()).unwrap();
    let mut config = NodeConfig::new(folder);
    let mut way = UpstreamConfig::new(format!("http://{}", server.address).parse().unwrap());
    way.allow_loopback = true;
    way.backoff_base_ms = 20;
    config.upstream = Some(way);
    let node = Node::start(config).await.unwrap();
    configure(&node, "auto_sync_enabled", FieldValue::Bool(false)).await;
    Shop { node, server, _at: at }
}

async fn configure(node: &Node, field: &str, value: FieldValue) {
    node.queue().update_config([(field.to_owned(), Some(value))].into_iter().collect()).await.unwrap();
}

/// Passes a request on, as a service does that has a server behind it.
async fn pass_on(server: std::net::SocketAddr, request: Request) -> Result<Response, reqwest::Error> {
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?;
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let url = format!("http://{server}{}", parts.uri);
    let mut passing = client.request(parts.method, url).body(body);
    for name in ["idempotency-key", "x-operation-id", "if-match"] {
        if let Some(value) = parts.headers.get(name) {
            passing = passing.header(name, value);
        }
    }
    let answer = passing.send().await?;
    let (status, bytes) = (answer.status(), answer.bytes().await?);
    Ok(Response::builder().status(status).body(Body::from(bytes)).unwrap())
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request {
    let building = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let building = headers.iter().fold(building, |building, (name, value)| building.header(*name, *value));
    building.body(Body::from(body.to_owned())).unwrap()
}

async fn read(answer: Response) -> (u16, Value) {
    let status = answer.status().as_u16();
    let bytes = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

#[tokio::test]
async fn what_cannot_reach_the_server_is_queued_and_reaches_it_once_when_it_is_back() {
    let Shop { node, server, _at } = shop().await;
    let address = server.address;
    let service =
        QueueOnFailure::new(node.queue().clone(), "visit").layer(service_fn(move |request| pass_on(address, request)));
    let send = |method: &str, path: &str, headers: &[(&str, &str)], body: &Value| {
        let request = request(method, path, headers, &if body.is_null() { String::new() } else { body.to_string() });
        let service = service.clone();
        async move { read(service.oneshot(request).await.unwrap()).await }
    };
    let visit = json!({ "shop": "Kiosk" });
    let (status, body) = send("POST", "/api/visits", &[("idempotency-key", "v-1")], &visit).await;
    assert_eq!((status, body["id"].as_str()), (201, Some("s-1")), "the server's own answer");
    assert_eq!(node.queue().status().await.unwrap().total(), 0, "nothing was queued");

    server.go_away().await;
    let (status, body) = send("POST", "/api/visits", &[("idempotency-key", "v-2")], &visit).await;
    assert_eq!((status, body["queued"].clone(), body["operationId"].clone()), (202, json!(true), json!("v-2")));
    let (status, again) = send("POST", "/api/visits", &[("idempotency-key", "v-2")], &visit).await;
    assert_eq!((status, again["repeated"].clone(), again["id"].clone()), (202, json!(true), body["id"].clone()));
    assert_eq!(send("GET", "/api/visits/s-1", &[], &Value::Null).await.0, 503, "a question can't be queued");
    let not_json = service.clone().oneshot(request("POST", "/api/visits", &[], "shop=Kiosk")).await.unwrap();
    assert_eq!(read(not_json).await.0, 503);

    server.come_back().await;
    // The server is there, but the visit that this is about is not there yet.
    let (status, _) = send("PATCH", "/api/visits/v-2", &[("idempotency-key", "v-3")], &json!({ "shop": "Duka" })).await;
    assert_eq!(status, 202, "it has to come behind what it changes");
    let (status, _) = send("POST", "/api/orders", &[("idempotency-key", "o-1")], &json!({ "visit_id": "v-2" })).await;
    assert_eq!(status, 202, "the server does not know that id yet");
    let (status, _) = send("POST", "/api/orders", &[("idempotency-key", "o-2")], &json!({ "visit_id": "s-1" })).await;
    assert_eq!(status, 201, "nothing holds this one up");
    let summary = node.queue().sync(std::time::Duration::ZERO).await.unwrap();
    assert_eq!((summary.success, summary.total), (3, 3));
    assert_eq!(server.record("s-3").value, json!({ "shop": "Duka", "id": "s-3" }));
    assert!(server.taken_all().values().all(|times| *times == 1), "{:?}", server.taken_all());
    let (status, told) = send("POST", "/api/visits", &[("idempotency-key", "v-2")], &visit).await;
    assert_eq!((status, told["server_id"].clone()), (200, json!("s-3")), "{told}");
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_request_whose_answer_is_lost_is_not_taken_twice() {
    let Shop { node, server, _at } = shop().await;
    let address = server.address;
    let layer = QueueOnFailure::new(node.queue().clone(), "visit").with_timeout(std::time::Duration::from_millis(300));
    let service = layer.layer(service_fn(move |request| pass_on(address, request)));
    server.misbehave("/api/visits", [Whim::SilentAfterCommit, Whim::Status(503, json!({}))]);
    let body = json!({ "shop": "Kiosk" }).to_string();
    let answer = service.clone().oneshot(request("POST", "/api/visits", &[], &body)).await.unwrap();
    let (status, body) = read(answer).await;
    assert_eq!((status, body["queued"].clone()), (202, json!(true)));
    let key = body["operationId"].as_str().unwrap().to_owned();
    assert_eq!(server.taken(&key), 1, "the server took it, and nobody heard of that");
    node.queue().sync(std::time::Duration::ZERO).await.unwrap();
    node.queue().sync(std::time::Duration::ZERO).await.unwrap();
    assert_eq!(node.queue().status().await.unwrap().of(QueueStatus::Synced), 1);
    assert_eq!(server.taken(&key), 1);
    node.stop().await.unwrap();
}

#[tokio::test]
async fn an_offline_device_is_known_kept_from_what_needs_a_connection_and_told_what_it_may_do() {
    let Shop { node, server, _at } = shop().await;
    let (queue, address) = (node.queue().clone(), server.address);
    let devices = TrackDevice::default();
    let who = |Extension(status): Extension<DeviceStatus>| async move { Json(json!({ "online": status.online })) };
    let visits = QueueOnFailure::new(queue.clone(), "visit").layer(service_fn(move |it| pass_on(address, it)));
    let service = Router::new()
        .route("/who", get(who))
        .route("/report", get(|| async { "all of it" }).layer(RequireOnline::new(queue.clone())))
        .route("/expenses", get(|| async { "taken" }).layer(CheckOffline::new(queue.clone(), "expense")))
        .route_service("/api/visits", visits)
        .layer(AddCapabilities::new(queue.clone()))
        .layer(devices.clone());
    let send = |method: &str, path: &str, headers: &[(&str, &str)]| {
        service.clone().oneshot(request(method, path, headers, "{}"))
    };
    let away = [("x-device-id", "phone-7"), ("x-is-online", "false"), ("x-network-type", "3g")];
    let answer = send("GET", "/who", &away).await.unwrap();
    assert_eq!(answer.headers()["x-offline-operations"], "sale,expense,record,payment,stock_adjustment,custom");
    assert_eq!(read(answer).await, (200, json!({ "online": false })));
    let seen = devices.devices().of("phone-7").unwrap();
    assert_eq!((seen.status.online, seen.status.network_type.as_deref(), seen.requests), (false, Some("3g"), 1));
    let (status, problem) = read(send("GET", "/who", &[("x-is-online", "perhaps")]).await.unwrap()).await;
    assert_eq!((status, problem["field"].clone()), (400, json!("x-is-online")));

    assert_eq!(send("GET", "/report", &[]).await.unwrap().status(), StatusCode::OK);
    let (status, problem) = read(send("GET", "/report", &away).await.unwrap()).await;
    assert_eq!((status, problem["code"].clone()), (503, json!("offline")));

    let (status, _) = read(send("POST", "/api/visits", &away).await.unwrap()).await;
    assert_eq!((status, server.seen().len()), (202, 0), "who has no network tries nothing");

    assert_eq!(send("GET", "/expenses", &away).await.unwrap().status(), StatusCode::OK);
    configure(&node, "allow_expenses_offline", FieldValue::Bool(false)).await;
    let answer = send("GET", "/expenses", &away).await.unwrap();
    assert_eq!(answer.headers()["x-offline-operations"], "sale,record,payment,stock_adjustment,custom");
    assert_eq!(read(answer).await.1["code"], "offline_not_allowed");
    assert_eq!(send("GET", "/expenses", &[]).await.unwrap().status(), StatusCode::OK, "online it may");
    configure(&node, "max_queue_size", FieldValue::Int(1)).await;
    let (status, problem) = read(send("POST", "/api/visits", &away).await.unwrap()).await;
    assert_eq!((status, problem["code"].clone()), (507, json!("queue_full")));
    configure(&node, "offline_mode_enabled", FieldValue::Bool(false)).await;
    assert_eq!(read(send("POST", "/api/visits", &away).await.unwrap()).await.1["code"], "offline_disabled");
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_mistake_of_the_service_is_not_taken_for_the_network() {
    let Shop { node, server: _server, _at } = shop().await;
    let broken = service_fn(|_: Request| async { Err::<Response, _>(std::io::Error::other("no such template")) });
    let service = QueueOnFailure::new(node.queue().clone(), "visit").layer(broken);
    let (status, problem) = read(service.oneshot(request("POST", "/api/visits", &[], "{}")).await.unwrap()).await;
    assert_eq!((status, problem["code"].clone()), (502, json!("upstream_failed")));
    assert_eq!(node.queue().status().await.unwrap().total(), 0);
    node.stop().await.unwrap();
}
