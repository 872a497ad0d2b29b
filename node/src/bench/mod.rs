//! Benchmarks of the real node, each with its floor from the same run: what the same work costs
//! without a shop around it. Run them in a release build.

mod delivery;
mod durable;
mod floors;
mod http;
mod large;
mod queueing;
mod sync;
mod webhook;
mod world;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use serde::Serialize;

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Which benchmark.
    pub name: &'static str,
    /// What was measured.
    pub value: f64,
    /// In which unit.
    pub unit: &'static str,
    /// What the same work costs without a shop around it, in the same unit.
    pub floor: Option<f64>,
    /// `value / floor`; for rates `floor / value`.
    pub ratio: Option<f64>,
    /// What was to be reached.
    pub target: String,
    /// Whether it was.
    pub met: bool,
}

type Run = fn(&Path) -> Pin<Box<dyn Future<Output = anyhow::Result<Figure>> + '_>>;

/// The benchmarks, in the order in which they run.
pub const BENCHES: [(&str, &str, Run); 17] = [
    ("durable_sale_p50", "one durable sale through HTTP", |at| Box::pin(durable::sale_p50(at))),
    ("durable_sales_64_callers", "durable sales through HTTP, 64 callers at once", |at| {
        Box::pin(durable::sales_64_callers(at))
    }),
    ("ingest_facts", "facts taken from a peer, durable", |at| Box::pin(sync::ingest_facts(at))),
    ("catch_up_100", "CPU of catching up 100 sales, history of 100,000 against 1,000", |at| {
        Box::pin(sync::catch_up_100(at))
    }),
    ("cold_sync_10000_time", "10,000 sales between two processes, durable at both ends", |at| {
        Box::pin(sync::cold_sync_time(at))
    }),
    ("cold_sync_10000_bytes", "the same, bytes on the wire both ways", |at| Box::pin(sync::cold_sync_bytes(at))),
    ("live_p50", "a sale on one till visible on another, both durable", |at| Box::pin(sync::live_p50(at))),
    ("status_100000", "the status of 100,000 operations through HTTP", |at| Box::pin(large::status(at))),
    ("webhook_ack_p99", "a payment callback, until its 200 says that it is durable", |at| {
        Box::pin(webhook::ack_p99(at))
    }),
    ("upstream_100", "100 operations to a server on this machine", |at| Box::pin(delivery::hundred(at))),
    ("queue_status_100000", "the status of 100,000 operations that wait for the shop's server, through HTTP", |at| {
        Box::pin(delivery::status(at))
    }),
    ("queue_operation_p50", "an operation queued for the shop's server through HTTP, durable", |at| {
        Box::pin(delivery::queue_one(at))
    }),
    (
        "sync_single_p50",
        "one operation sent to a server on this machine through HTTP, from the word to its outcome",
        |at| Box::pin(delivery::sync_one(at)),
    ),
    ("queue_query_100000", "a page of 100,000 operations that wait for the shop's server, through HTTP", |at| {
        Box::pin(delivery::query(at))
    }),
    ("queueing_cpu", "CPU of recording a sale and queueing it for the shop's server", |at| Box::pin(queueing::cpu(at))),
    ("queue_100000_memory", "memory of a till with 100,000 sales that wait for the shop's server", |at| {
        Box::pin(queueing::memory(at))
    }),
    ("till_100000_memory", "memory of a till with 100,000 sales", |at| Box::pin(large::memory(at))),
];

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

impl Figure {
    /// A figure that is to stay at or below `times` its floor.
    fn at_most_times(name: &'static str, value: f64, unit: &'static str, floor: f64, times: f64) -> Self {
        let ratio = value / floor;
        Self {
            name,
            value: round(value),
            unit,
            floor: Some(round(floor)),
            ratio: Some(round(ratio)),
            target: format!("at most {times} times the floor"),
            met: ratio <= times,
        }
    }

    /// A figure that is to stay at or below `limit`.
    fn at_most(name: &'static str, value: f64, unit: &'static str, floor: Option<f64>, limit: f64) -> Self {
        Self {
            name,
            value: round(value),
            unit,
            floor: floor.map(round),
            ratio: floor.map(|floor| round(value / floor)),
            target: format!("at most {limit} {unit}"),
            met: value <= limit,
        }
    }

    /// A rate that is to reach `limit`.
    fn at_least(name: &'static str, value: f64, unit: &'static str, floor: f64, limit: f64) -> Self {
        Self {
            name,
            value: round(value),
            unit,
            floor: Some(round(floor)),
            ratio: Some(round(floor / value)),
            target: format!("at least {limit} {unit}"),
            met: value >= limit,
        }
    }
}

/// The middle of some measurements.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
