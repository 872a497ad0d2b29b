//! Stories with the real program: processes of their own, real files, real sockets on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    reason = "a test that can't go on fails, and seeds are printed"
)]

mod analytics;
mod crashes;
mod disks;
mod folders;
mod handoffs;
mod links;
mod node;
mod payments;
mod till_and_provider;
mod upstream;
mod upstream_corrections;
mod upstream_crashes;
mod upstream_decisions;
#[path = "../support/upstream.rs"]
mod upstream_server;
mod upstream_when;
