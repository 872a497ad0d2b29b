//! What runs in the guest of tests/bluetooth, which has Linux; elsewhere it is nothing.

#![allow(clippy::indexing_slicing, reason = "a field that a JSON answer lacks reads as null, as in other tests")]

#[cfg(target_os = "linux")]
mod stories;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    stories::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {}
