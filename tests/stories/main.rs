//! Stories of a shop's devices in virtual time, and the laws that hold for all of them.

#[path = "../support/mod.rs"]
mod support;

mod hostile_peers;
mod merge_laws;
mod shop_stories;
