//! Stories of a shop's devices in virtual time, and the laws that hold for all of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    reason = "a test that can't go on fails, and seeds are printed"
)]

#[path = "../support/mod.rs"]
mod support;

mod handoffs;
mod holdings;
mod hostile_peers;
mod merge_laws;
mod shop_stories;
