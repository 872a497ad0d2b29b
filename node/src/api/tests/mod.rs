//! The API as its callers see it: the router over a real shop with storage in memory.

mod bad_input;
mod day;
mod handoffs;
mod idempotency;
mod offline;
mod openapi;
mod payment_care;
mod support;
mod two_tills;
