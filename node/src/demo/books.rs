//! A till's API and its books, as the demo sees them.

use std::net::SocketAddr;

use anyhow::Context;
use reqwest::{Client, RequestBuilder, Url};
use serde::Deserialize;
use serde_json::Value;

/// The books of a device, as `GET /api/books` tells them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Books {
    /// Equal digests mean equal figures, to the cent.
    pub(super) digest: String,
    /// Equal digests mean equal Automerge documents.
    pub(super) documents: String,
    /// Equal digests mean that both hold the same entries.
    pub(super) frontier: String,
    pub(super) sales: u64,
    pub(super) refunds: u64,
    /// Sales less refunds and voids.
    pub(super) total_minor: i64,
    pub(super) conflicts: u64,
    pub(super) payments: PaymentCounts,
}

/// How many intents are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct PaymentCounts {
    pub(super) intents: u64,
    pub(super) paid: u64,
    pub(super) declined: u64,
    pub(super) open: u64,
    pub(super) paid_minor: i64,
}

/// The API of one device.
#[derive(Debug, Clone)]
pub(super) struct Api {
    http: Client,
    address: SocketAddr,
}

impl Api {
    pub(super) fn new(http: Client, address: SocketAddr) -> Self {
        Self { http, address }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        answer(path, self.http.post(self.url(path)).json(body)).await
    }

    pub(super) async fn patch(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        answer(path, self.http.patch(self.url(path)).json(body)).await
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        answer(path, self.http.get(self.url(path))).await
    }

    /// Every item of a list, page by page.
    pub(super) async fn all(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut url = Url::parse_with_params(&self.url(path), [("limit", "200")])?;
        loop {
            let mut page = answer(path, self.http.get(url)).await?;
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            let Some(next) = page.get("next").and_then(Value::as_str) else { return Ok(items) };
            url = Url::parse_with_params(&self.url(path), [("limit", "200"), ("cursor", next)])?;
        }
    }

    pub(super) async fn books(&self) -> anyhow::Result<Books> {
        Ok(serde_json::from_value(self.get("/api/books").await?)?)
    }
}

async fn answer(path: &str, request: RequestBuilder) -> anyhow::Result<Value> {
    let response = request.send().await.with_context(|| format!("{path} was not answered"))?;
    let (status, text) = (response.status(), response.text().await?);
    anyhow::ensure!(status.is_success(), "{path} was answered {status}: {text}");
    Ok(serde_json::from_str(&text)?)
}
