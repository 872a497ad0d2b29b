//! Real processes and wires on loopback, for the demo and the benchmarks.

mod child;
mod wire;

pub(crate) use child::{ChildNode, Launch, Simulator};
pub(crate) use wire::Wire;
