//! A service of a shop's own, in front of the shop's server: its visits pass through to the server
//! while that can be reached, and are queued by the node beside it while it can't. The server here
//! is the one that the tests misbehave with; it goes away and comes back.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    dead_code,
    reason = "the server is shared with the tests, which use more of it"
)]

#[path = "../tests/support/upstream.rs"]
mod upstream;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use crdt_model::document::FieldValue;
use crdt_model::money::Currency;
use serde_json::{Value, json};
use tillmesh_node::folder;
use tillmesh_node::layers::{
    AddCapabilities, CheckOffline, DeviceStatus, Devices, QueueOnFailure, RequireOnline, TrackDevice,
};
use tillmesh_node::node::{Node, NodeConfig};
use tillmesh_node::queue::{Queue, QueueStatus};
use tillmesh_node::shop_loop::now;
use tillmesh_node::upstream::UpstreamConfig;
use tower::{Layer, service_fn};
use upstream::Upstream;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = Upstream::start(true).await;
    let data = tempfile::tempdir()?;
    folder::found(data.path(), "Duka", Currency::KES, 180, "service", now())?;
    let mut config = NodeConfig::new(data.path());
    let mut way = UpstreamConfig::new(format!("http://{}", server.address).parse()?);
    way.allow_loopback = true;
    way.backoff_base_ms = 20;
    config.upstream = Some(way);
    let node = Node::start(config).await?;

    let devices = Devices::default();
    let api = serve(service(node.queue(), server.address, devices.clone())).await?;
    let app = App { api, client: reqwest::Client::builder().no_proxy().build()? };

    let (status, body) = app.visit("visit-1").await?;
    println!("with the server there: {status} {body}");
    ensure!(status == 201 && server.taken("visit-1") == 1);

    server.go_away().await;
    let (status, body) = app.visit("visit-2").await?;
    println!("with the server away: {status} {body}");
    ensure!(status == 202 && body["queued"] == true);
    // After a few tries in vain the node leaves the server alone for a while.
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, until_away(node.queue()))
        .await
        .context("the server's absence was not noticed")??;
    let (status, body) = app.send("GET", "/report", true).await?;
    println!("what needs it: {status} {}", body["detail"]);
    ensure!(status == 503);

    server.come_back().await;
    let (status, _) = app.send("POST", "/api/visits", false).await?;
    println!("from a device that says it is offline: {status}, without trying");
    ensure!(status == 202);
    tokio::time::timeout(patience, until_synced(node.queue(), 2)).await.context("not everything was delivered")??;
    for (operation, times) in server.taken_all() {
        println!("{operation}: taken {times} time");
        ensure!(times == 1, "{operation} was taken {times} times");
    }

    let forbidden = [("allow_custom_offline".to_owned(), Some(FieldValue::Bool(false)))];
    node.queue().update_config(forbidden.into_iter().collect()).await?;
    let (status, body) = app.send("POST", "/api/visits", false).await?;
    println!("once the business does not allow it: {status} {}", body["code"]);
    ensure!(status == 403);
    for (device, seen) in devices.all() {
        println!("{device}: {} requests, online: {}", seen.requests, seen.status.online);
    }
    node.stop().await.map_err(anyhow::Error::msg)
}

/// The service: every layer once.
fn service(queue: &Queue, server: SocketAddr, devices: Devices) -> Router {
    let visits = QueueOnFailure::new(queue.clone(), "visit").layer(service_fn(move |it| pass_on(server, it)));
    let greeting = |Extension(device): Extension<DeviceStatus>| async move { format!("online: {}", device.online) };
    Router::new()
        .route_service("/api/visits", CheckOffline::new(queue.clone(), "visit").layer(visits))
        .route("/report", get(|| async { "all visits" }).layer(RequireOnline::new(queue.clone())))
        .route("/", get(greeting))
        .layer(AddCapabilities::new(queue.clone()))
        .layer(TrackDevice::in_list(devices))
}

/// Any error with its causes: the layer looks for the network among them.
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Passes a request on to the server, with the key under which the queue would send it.
async fn pass_on(server: SocketAddr, request: Request) -> Result<Response, Failed> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let (parts, body) = request.into_parts();
    let mut passing = client.request(parts.method, format!("http://{server}{}", parts.uri));
    for name in ["content-type", "idempotency-key", "x-operation-id"] {
        if let Some(value) = parts.headers.get(name) {
            passing = passing.header(name, value);
        }
    }
    let answer = passing.body(to_bytes(body, 256 * 1024).await?).send().await?;
    let status = answer.status();
    Ok(Response::builder().status(status).body(Body::from(answer.bytes().await?))?)
}

async fn serve(service: Router) -> anyhow::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, service).await });
    Ok(address)
}

async fn until_away(queue: &Queue) -> anyhow::Result<()> {
    while queue.is_online().await? {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn until_synced(queue: &Queue, count: u64) -> anyhow::Result<()> {
    loop {
        queue.sync(Duration::ZERO).await?;
        if queue.status().await?.of(QueueStatus::Synced) == count {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A field sales person's app.
struct App {
    api: SocketAddr,
    client: reqwest::Client,
}

impl App {
    async fn visit(&self, id: &str) -> anyhow::Result<(u16, Value)> {
        let url = format!("http://{}/api/visits", self.api);
        let asking = self.client.post(url).header("x-device-id", "phone-7").header("idempotency-key", id);
        read(asking.json(&json!({ "shop": "Kiosk" })).send().await?).await
    }

    async fn send(&self, method: &str, path: &str, online: bool) -> anyhow::Result<(u16, Value)> {
        let asking = self.client.request(method.parse()?, format!("http://{}{path}", self.api));
        let asking = asking.header("x-device-id", "phone-7").header("x-is-online", online.to_string());
        read(asking.json(&json!({ "shop": "Duka" })).send().await?).await
    }
}

async fn read(answer: reqwest::Response) -> anyhow::Result<(u16, Value)> {
    ensure!(answer.headers().contains_key("x-offline-operations"), "every answer says what can be done offline");
    Ok((answer.status().as_u16(), answer.json().await.unwrap_or_default()))
}
