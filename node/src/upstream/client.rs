//! One exchange with the shop's own server: bounded, without proxies, redirects or retries of its
//! own, and only with addresses that the guard lets through.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{self, HeaderMap};
use reqwest::{Client, Method, Response, redirect, retry};

use super::classify::{Answer, NoAnswer};
use super::config::UpstreamConfig;
use super::guard::GuardedNames;
use super::request::Prepared;

/// An answer is read up to this size.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// The way to the server.
#[derive(Debug, Clone)]
pub(super) struct UpstreamClient {
    client: Client,
    names: GuardedNames,
    token: Option<String>,
}

impl UpstreamClient {
    pub(super) fn new(config: &UpstreamConfig) -> Result<Self, reqwest::Error> {
        let names = GuardedNames::new(config.allowed());
        let builder = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .dns_resolver(Arc::new(names.clone()))
            .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
            .timeout(Duration::from_millis(config.timeout_ms));
        // Plain HTTP is for this machine, and needs no certificates.
        let builder =
            if config.base_url.scheme() == "http" { builder.tls_certs_only([]) } else { builder.https_only(true) };
        Ok(Self { client: builder.build()?, names, token: config.bearer_token.clone() })
    }

    /// Sends a request once.
    pub(super) async fn send(&self, prepared: &Prepared) -> Result<Answer, NoAnswer> {
        let method = Method::from_bytes(prepared.sent.method.as_bytes()).unwrap_or(Method::POST);
        let mut building = self
            .client
            .request(method, prepared.url.clone())
            .header(header::ACCEPT, "application/json")
            .header("idempotency-key", &prepared.key)
            .header("x-device-id", &prepared.device);
        if let Some(id) = prepared.operation_id.as_ref().filter(|id| id.is_ascii()) {
            building = building.header("x-operation-id", id);
        }
        if let Some(tag) = &prepared.if_match {
            building = building.header(header::IF_MATCH, tag);
        }
        if let Some(body) = &prepared.body {
            building = building.header(header::CONTENT_TYPE, "application/json").body(body.clone());
            if prepared.compressed {
                building = building.header(header::CONTENT_ENCODING, "gzip");
            }
        }
        self.exchange(building).await
    }

    /// What the server has there now.
    pub(super) async fn look(&self, prepared: &Prepared, more: Option<&str>) -> Result<Answer, NoAnswer> {
        let mut url = prepared.url.clone();
        url.set_query(None);
        if let (Some(id), Ok(mut pieces)) = (more, url.path_segments_mut()) {
            pieces.push(id);
        }
        self.exchange(self.client.get(url).header(header::ACCEPT, "application/json")).await
    }

    async fn exchange(&self, building: reqwest::RequestBuilder) -> Result<Answer, NoAnswer> {
        let building = match &self.token {
            Some(token) => building.bearer_auth(token),
            None => building,
        };
        match building.send().await {
            Ok(response) => read(response).await,
            Err(error) => Err(self.no_answer(&error)),
        }
    }

    fn no_answer(&self, error: &reqwest::Error) -> NoAnswer {
        let cause = last_cause(error);
        if error.is_builder() {
            return NoAnswer::Forbidden(format!("the request can't be made: {cause}"));
        }
        if !error.is_connect() {
            return if error.is_timeout() { NoAnswer::Timeout } else { NoAnswer::Broken(cause) };
        }
        if let Some(why) = self.names.take_refused() {
            return NoAnswer::Forbidden(why);
        }
        let kind = io_kind(error);
        if kind == Some(std::io::ErrorKind::ConnectionRefused) {
            NoAnswer::Refused(cause)
        } else if error.to_string().contains("dns") || chain_says(error, "dns error") {
            NoAnswer::Dns(cause)
        } else {
            NoAnswer::Unreachable(cause)
        }
    }
}

async fn read(mut response: Response) -> Result<Answer, NoAnswer> {
    let headers = response.headers();
    let mut answer = Answer {
        status: response.status().as_u16(),
        etag: text(headers, header::ETAG.as_str()),
        location: text(headers, header::LOCATION.as_str()),
        retry_after_ms: text(headers, header::RETRY_AFTER.as_str()).and_then(|text| retry_after_ms(&text)),
        replayed: headers.contains_key("idempotent-replayed") || headers.contains_key("idempotency-replayed"),
        ..Answer::default()
    };
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => break,
            Ok(Some(chunk)) if body.len().saturating_add(chunk.len()) > ANSWER_BYTES_MAX => {
                return Err(NoAnswer::TooLarge);
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Err(error) if error.is_timeout() => return Err(NoAnswer::Timeout),
            Err(error) => return Err(NoAnswer::Broken(last_cause(&error))),
        }
    }
    answer.bytes = body.len() as u64;
    answer.body = serde_json::from_slice(&body).ok();
    Ok(answer)
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    (value.len() <= HEADER_BYTES_MAX).then(|| value.to_owned())
}

/// Seconds; a date is taken as a minute, because clocks differ.
fn retry_after_ms(text: &str) -> Option<u64> {
    let seconds = match text.trim().parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) if text.contains("GMT") => 60,
        Err(_) => return None,
    };
    Some(seconds.min(RETRY_AFTER_SECONDS_MAX) * 1_000)
}

const HEADER_BYTES_MAX: usize = 1_024;
/// A server that asks for more than a day is mistaken.
const RETRY_AFTER_SECONDS_MAX: u64 = 24 * 60 * 60;

/// The last cause, without the address.
fn last_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string().chars().take(200).collect()
}

fn chain_says(error: &reqwest::Error, words: &str) -> bool {
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains(words) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn io_kind(error: &reqwest::Error) -> Option<std::io::ErrorKind> {
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}
