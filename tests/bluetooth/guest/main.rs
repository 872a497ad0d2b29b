//! What runs in the guest of tests/bluetooth, which has Linux; elsewhere it is nothing.

#[cfg(target_os = "linux")]
mod stories;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    stories::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {}
