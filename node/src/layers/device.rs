//! Who asks, and whether they are online: the headers `X-Device-Id`, `X-Is-Online` and
//! `X-Network-Type` of each request, for handlers as an extension, and for people as a list.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use crdt_model::time::Timestamp;
use tower::{Layer, Service};

use super::{Answering, below};
use crate::api::Problem;

/// What a device says of itself with a request. In a handler behind [`TrackDevice`] it is
/// `Extension<DeviceStatus>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceStatus {
    /// `X-Device-Id`: who it is.
    pub device: Option<String>,
    /// `X-Is-Online`: whether it has a network; it has if it does not say.
    pub online: bool,
    /// `X-Network-Type`: `wifi`, `ethernet`, `4g`, …
    pub network_type: Option<String>,
}

/// A header that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the header {name} must be {wanted}")]
pub struct BadHeader {
    /// The header.
    pub name: &'static str,
    /// What would do.
    pub wanted: &'static str,
}

/// When a device was heard of, and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it last said.
    pub status: DeviceStatus,
    /// When.
    pub at: Timestamp,
    /// How many requests it has sent.
    pub requests: u64,
}

/// The devices that were heard of: at most 1,024, and of more those that were heard of last. Clones
/// are the same list.
#[derive(Debug, Clone, Default)]
pub struct Devices(Arc<Mutex<BTreeMap<String, Seen>>>);

/// Tracks which devices ask, and whether they are online.
#[derive(Debug, Clone, Default)]
pub struct TrackDevice {
    devices: Devices,
}

/// The service of [`TrackDevice`].
#[derive(Debug, Clone)]
pub struct Tracking<S> {
    inner: S,
    devices: Devices,
}

const DEVICES_MAX: usize = 1_024;
const HEADER_CHARS_MAX: usize = 200;

impl DeviceStatus {
    /// What the headers of a request say.
    ///
    /// # Errors
    /// [`BadHeader`].
    pub fn of(headers: &HeaderMap) -> Result<Self, BadHeader> {
        let online = match text(headers, "x-is-online")? {
            None | Some("true" | "1") => true,
            Some("false" | "0") => false,
            Some(_) => return Err(BadHeader { name: "x-is-online", wanted: "true or false" }),
        };
        Ok(Self {
            device: text(headers, "x-device-id")?.map(str::to_owned),
            online,
            network_type: text(headers, "x-network-type")?.map(str::to_owned),
        })
    }

    /// What a request says: as [`TrackDevice`] has read it, or its headers.
    pub(super) fn of_request(request: &Request) -> Result<Self, BadHeader> {
        match request.extensions().get::<Self>() {
            Some(status) => Ok(status.clone()),
            None => Self::of(request.headers()),
        }
    }
}

/// A header's plain text, bounded.
pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<Option<&'h str>, BadHeader> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let wanted = "plain visible text of at most 200 characters";
    match value.to_str().map(str::trim) {
        Ok(text) if !text.is_empty() && text.len() <= HEADER_CHARS_MAX => Ok(Some(text)),
        _ => Err(BadHeader { name, wanted }),
    }
}

impl Devices {
    /// One device.
    #[must_use]
    pub fn of(&self, device: &str) -> Option<Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(device).cloned()
    }

    /// All of them, by their ids.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Seen)> {
        let devices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        devices.iter().map(|(device, seen)| (device.clone(), seen.clone())).collect()
    }

    fn hear(&self, status: &DeviceStatus, at: Timestamp) {
        let Some(device) = &status.device else { return };
        let mut devices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = devices.get(device).map_or(0, |seen| seen.requests).saturating_add(1);
        devices.insert(device.clone(), Seen { status: status.clone(), at, requests });
        if devices.len() > DEVICES_MAX {
            let oldest = devices.iter().min_by_key(|(_, seen)| seen.at).map(|(device, _)| device.clone());
            oldest.map(|device| devices.remove(&device));
        }
    }
}

impl TrackDevice {
    /// Tracks devices in a list, which others may read.
    #[must_use]
    pub fn in_list(devices: Devices) -> Self {
        Self { devices }
    }

    /// The list.
    #[must_use]
    pub fn devices(&self) -> &Devices {
        &self.devices
    }
}

impl<S> Layer<S> for TrackDevice {
    type Service = Tracking<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Tracking { inner, devices: self.devices.clone() }
    }
}

impl<S> Service<Request> for Tracking<S>
where
    S: Service<Request, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Answering<S::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let status = match DeviceStatus::of(request.headers()) {
            Ok(status) => status,
            Err(bad) => return Box::pin(std::future::ready(Ok(Problem::from(bad).into_response()))),
        };
        self.devices.hear(&status, crate::clock::now());
        request.extensions_mut().insert(status);
        Box::pin(below(&self.inner, request))
    }
}
