//! The tillmesh node: storage, links, HTTP API, relay and command line; also a library to embed.

pub mod api;
mod asides;
pub mod bench;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod folder;
pub mod import;
pub mod join;
mod lab;
pub mod layers;
mod links;
pub mod node;
pub mod operations;
pub mod payments;
pub mod queue;
pub mod relay;
pub mod shop_handle;
pub mod shop_loop;
pub mod simulation;
pub mod storage;
mod turn;

pub mod upstream;
/// A shop's own server that misbehaves when told to, for tests.
#[cfg(test)]
#[allow(dead_code, reason = "it is shared with the other tests and an example")]
#[path = "../../tests/support/upstream.rs"]
mod upstream_server;
mod ways;
