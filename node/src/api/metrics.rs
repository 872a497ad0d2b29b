//! The node's numbers for Prometheus. What counts up survives a restart; no label takes more values
//! than are fixed or bounded here, and none carries anything personal.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use crdt_model::record::ErrorClass;
use crdt_model::shop::Shop;

use super::exposition::{CONTENT_TYPE, Exposition, MetricType};
use super::problem::{Problem, ProblemDocument};
use super::state::ApiState;
use crate::queue::QueueStatus;
use crate::queue::alerts::AlertKind;
use crate::queue::attempts::AttemptResult;
use crate::queue::figures::{DURATION_BOUNDS_MS, Figures, of_devices};
use crate::queue::stretches::Lacking;
use crate::shop_handle::ReadError;

/// The most devices with series of their own; the rest are one, `other`.
const DEVICES_MAX: usize = 64;
/// More devices than a business has.
const DEVICES_READ_MAX: usize = 10_000;
const OTHER_DEVICE: &str = "other";

const CLASSES: [ErrorClass; 6] = [
    ErrorClass::Network,
    ErrorClass::ServerError,
    ErrorClass::Validation,
    ErrorClass::Auth,
    ErrorClass::Conflict,
    ErrorClass::Rate,
];

/// What the shop itself says.
struct Standing {
    relay_pending: u64,
    conflicts: u64,
    quarantined: u64,
    peers: u64,
    connected: u64,
}

/// The node's numbers, in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "service",
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = "5XX", body = ProblemDocument, content_type = "application/problem+json")))]
pub(super) async fn metrics(State(state): State<ApiState>) -> Result<Response, Problem> {
    let mut exposition = Exposition::default();
    let mut build = exposition.family("tillmesh_build_info", MetricType::Gauge, "The version that runs; always 1");
    build.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let standing = state.shop.ask(standing).await?;
    shop(&mut exposition, &standing);
    queue(&mut exposition, &state).await?;
    let devices = of_devices(state.shop.reader().as_ref(), DEVICES_READ_MAX).map_err(ReadError::from)?;
    let devices = devices.into_iter().map(|(device, figures)| (device.to_string(), figures));
    calls(&mut exposition, &bounded(devices));
    offline(&mut exposition, &state)?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], exposition.into_text()).into_response())
}

fn standing(shop: &Shop) -> Standing {
    let (status, peers) = (shop.status(), shop.peers());
    Standing {
        relay_pending: status.pending,
        conflicts: status.conflicts,
        quarantined: shop.quarantine().count() as u64,
        peers: peers.len() as u64,
        connected: peers.iter().filter(|peer| !peer.links.is_empty()).count() as u64,
    }
}

fn shop(exposition: &mut Exposition, standing: &Standing) {
    let gauges = [
        ("tillmesh_relay_pending", "Entries of this device that no relay has yet", standing.relay_pending),
        ("tillmesh_conflicts_open", "Conflicts that wait for a person", standing.conflicts),
        ("tillmesh_quarantined", "Entries that are kept and can't be applied", standing.quarantined),
        ("tillmesh_peers", "Other devices of the business", standing.peers),
        ("tillmesh_peers_connected", "Other devices with a link that is up", standing.connected),
    ];
    for (name, help, value) in gauges {
        exposition.family(name, MetricType::Gauge, help).sample(&[], value);
    }
}

async fn queue(exposition: &mut Exposition, state: &ApiState) -> Result<(), Problem> {
    if state.desk.is_engaged().await? {
        let counters = state.desk.counters().await?;
        let help = "Operations on their way to the shop's own server";
        let mut family = exposition.family("tillmesh_queue_operations", MetricType::Gauge, help);
        for status in QueueStatus::ALL {
            family.sample(&[("status", status.word())], counters.of(status));
        }
        let help = "When an operation was last synced, in seconds since 1970 UTC";
        let mut family = exposition.family("tillmesh_queue_last_sync_seconds", MetricType::Gauge, help);
        family.sample(&[], seconds(counters.last_sync_ms.unwrap_or_default()));
    }
    let counts = state.desk.alert_counts().await?;
    let help = "What people were alerted to";
    let mut family = exposition.family("tillmesh_alerts_total", MetricType::Counter, help);
    for kind in AlertKind::ALL {
        family.sample(&[("kind", kind.word())], kind.of(&counts));
    }
    Ok(())
}

fn calls(exposition: &mut Exposition, devices: &BTreeMap<String, Figures>) {
    let mut all = Figures::default();
    devices.values().for_each(|figures| all.merge(figures));
    let counter = MetricType::Counter;
    let help = "Calls of the shop's own server by the device that recorded the operation";
    let mut family = exposition.family("tillmesh_upstream_calls_total", counter, help);
    for (device, figures) in devices {
        for result in AttemptResult::ALL {
            family.sample(&[("device", device), ("result", result.word())], figures.of(result));
        }
    }
    let help = "Calls of the shop's own server that did not do, by class";
    let mut family = exposition.family("tillmesh_upstream_errors_total", counter, help);
    for class in CLASSES {
        family.sample(&[("class", class.word())], all.errors_of(class));
    }
    let help = "Bytes of bodies to and from the shop's own server";
    let mut family = exposition.family("tillmesh_upstream_bytes_total", counter, help);
    family.sample(&[("direction", "sent")], all.bytes_sent);
    family.sample(&[("direction", "received")], all.bytes_received);
    let help = "Calls of the shop's own server by kind of network, and whether an answer came";
    let mut family = exposition.family("tillmesh_upstream_network_calls_total", counter, help);
    for (word, network) in &all.networks {
        let silent = network.calls.saturating_sub(network.answered);
        family.sample(&[("network", word), ("answered", "true")], network.answered);
        family.sample(&[("network", word), ("answered", "false")], silent);
    }
    let bounds = DURATION_BOUNDS_MS.map(seconds);
    let help = "How long calls of the shop's own server took";
    let mut family = exposition.family("tillmesh_upstream_call_duration_seconds", MetricType::Histogram, help);
    family.histogram(&bounds, &all.durations.counts, seconds(all.durations.sum_ms));
}

fn offline(exposition: &mut Exposition, state: &ApiState) -> Result<(), Problem> {
    let mut ever = Vec::new();
    for lacking in Lacking::ALL {
        ever.push((lacking, state.desk.stretches_ever(lacking)?));
    }
    let help = "Whether the node is without a link to its relay, or its carrier without the shop's own server";
    let mut family = exposition.family("tillmesh_offline", MetricType::Gauge, help);
    for lacking in Lacking::ALL {
        family.sample(&[("without", lacking.word())], u8::from(state.desk.is_lacking(lacking)));
    }
    let help = "How long it was so";
    let mut family = exposition.family("tillmesh_offline_seconds_total", MetricType::Counter, help);
    for (lacking, stretches) in &ever {
        family.sample(&[("without", lacking.word())], seconds(stretches.sum_ms));
    }
    let help = "How often it began to be so";
    let mut family = exposition.family("tillmesh_offline_stretches_total", MetricType::Counter, help);
    for (lacking, stretches) in &ever {
        family.sample(&[("without", lacking.word())], stretches.count);
    }
    Ok(())
}

/// At most [`DEVICES_MAX`] devices, and the rest as one.
fn bounded(devices: impl Iterator<Item = (String, Figures)>) -> BTreeMap<String, Figures> {
    let mut found: BTreeMap<String, Figures> = BTreeMap::new();
    for (device, figures) in devices {
        let name = if found.len() < DEVICES_MAX { device } else { OTHER_DEVICE.to_owned() };
        found.entry(name).or_default().merge(&figures);
    }
    found
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are 64-bit floats")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_devices_make_no_thousand_series() {
        let devices = (0..1_000).map(|number| {
            let mut figures = Figures::default();
            figures.results[0] = 1;
            (format!("{number:04}"), figures)
        });
        let bounded = bounded(devices);
        assert_eq!(bounded.len(), DEVICES_MAX + 1);
        assert_eq!(bounded[OTHER_DEVICE].calls(), 1_000 - DEVICES_MAX as u64);
    }
}
