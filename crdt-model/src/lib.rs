//! What a shop's devices record, and how it merges: pure code with no clock, randomness, IO or
//! unordered iteration. Times and randomness come in with each [`shop::Input`]; what has to be
//! stored, sent or shown goes out as [`shop::Output`]s.
//!
//! Start reading at [`shop`], then [`entry`] and [`journal`] (what is recorded),
//! [`sync`] (what devices say to each other), and [`books`] (the figures).

pub mod books;
pub mod document;
pub mod entry;
pub mod frontier;
pub mod ids;
pub mod journal;
pub mod merge;
pub mod money;
pub mod page;
pub mod payment;
pub mod record;
pub mod rules;
pub mod shop;
pub mod sync;
pub mod time;
