//! The stories of Bluetooth, told in the guest of tests/bluetooth with the real command, on the
//! real stack. Prints what it measured; the last line is one JSON object.

#![allow(clippy::print_stdout, clippy::cast_possible_truncation)]

mod air;
mod doctor;
mod handoffs;
mod meetings;
mod money;
mod nodes;
mod speed;
mod stack;
mod strangers;
mod walls;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::json;

/// How long anything may take: an emulated processor, on a machine that may be busy with more than
/// that. Only what goes wrong takes as long.
const PATIENCE: Duration = Duration::from_secs(120);
/// What one question may take; after that it is put again. hcitool was seen to hang in the kernel.
const QUESTION_MAX: Duration = Duration::from_secs(30);
const STORY_MAX: Duration = Duration::from_secs(480);
const LOG: &str = "/tmp/guest.log";
const LINES_SHOWN: usize = 40;

/// What was measured, by name.
#[derive(Debug, Default)]
struct Figures(BTreeMap<&'static str, f64>);

impl Figures {
    fn note(&mut self, name: &'static str, value: f64) {
        self.0.insert(name, (value * 10.0).round() / 10.0);
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn main() -> std::process::ExitCode {
    let only = argument("--only").unwrap_or_default();
    if let Err(error) = log_to_a_file() {
        say(&format!("nothing is logged: {error:#}"));
    }
    let mut figures = Figures::default();
    let began = Instant::now();
    let outcome = tell_all(&only, &mut figures).await;
    if let Err(error) = &outcome {
        say(&format!("FAILED: {error:#}"));
    }
    let mut result = json!({ "passed": outcome.is_ok() });
    for (name, value) in &figures.0 {
        result[*name] = json!(value);
    }
    println!("GUEST stories took {:.1} s", began.elapsed().as_secs_f64());
    println!("GUEST RESULT {result}");
    std::process::ExitCode::from(u8::from(outcome.is_err()))
}

async fn tell_all(only: &str, figures: &mut Figures) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    let mut stack = stack::Stack::new();
    // In this order, each with a bluetoothd of its own.
    macro_rules! tell {
        ($name:literal, $story:expr) => {
            if only.split(',').any(|word| $name.contains(word)) {
                let began = Instant::now();
                let renewed = stack.renew().await.context("bluetoothd");
                let told = async {
                    renewed?;
                    tokio::time::timeout(STORY_MAX, $story).await.context("it never ended")?
                };
                match told.await {
                    Ok(()) => say(&format!("{}: passed in {:.1} s", $name, began.elapsed().as_secs_f64())),
                    // The others are told all the same.
                    Err(error) => {
                        say(&format!("FAILED: {}: {error:#}", $name));
                        println!("{}", end_of(LOG));
                        failed.push($name);
                    }
                }
            }
        };
    }
    tell!("the doctor sees the adapters", doctor::the_doctor_sees_the_adapters());
    tell!("sessions, and the carriers below them", speed::sessions_and_what_is_below(figures));
    tell!("a thousand sales both ways", meetings::a_thousand_sales_both_ways(figures));
    tell!("cut in the middle, and resumed", meetings::cut_in_the_middle());
    tell!("a shift is handed over, interrupted", handoffs::interrupted_handoff(&mut stack));
    tell!("a stranger is refused", strangers::a_stranger_is_refused());
    tell!("a receipt by way of a colleague", money::a_receipt_by_way_of_a_colleague());
    tell!("over to Wi-Fi and back", walls::over_to_wifi_and_back());
    figures.note("bluetoothd_ended_itself", f64::from(stack.ended_itself()));
    anyhow::ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// What the nodes within this process log; the others have files of their own.
fn log_to_a_file() -> anyhow::Result<()> {
    let file = std::sync::Mutex::new(std::fs::File::create(LOG)?);
    let log = tracing_subscriber::fmt().with_env_filter("info,transport::bluetooth=debug").with_ansi(false);
    log.with_writer(file).try_init().map_err(anyhow::Error::msg)
}

/// The last lines of a file.
fn end_of(path: impl AsRef<std::path::Path>) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| error.to_string());
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(LINES_SHOWN)..).unwrap_or_default().join("\n")
}

fn say(text: &str) {
    println!("GUEST {text}");
}

fn argument(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1).filter(|value| !value.starts_with("--"))
}

/// Asks again and again until there is an answer.
async fn until<T, F: Future<Output = anyhow::Result<Option<T>>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let began = Instant::now();
    loop {
        let asked = Instant::now();
        match tokio::time::timeout(QUESTION_MAX, ask()).await {
            Ok(answered) => {
                if let Some(answer) = answered? {
                    return Ok(answer);
                }
            }
            Err(_) => say(&format!("{what}: no answer within {QUESTION_MAX:?}: it is asked again")),
        }
        if began.elapsed() > PATIENCE {
            bail!("{what}: not within {PATIENCE:?}");
        }
        // Whatever is asked is to have time for other things.
        tokio::time::sleep(asked.elapsed().max(Duration::from_millis(50))).await;
    }
}

/// Gives up on what takes far too long.
async fn within<T>(what: &str, work: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, work).await.with_context(|| format!("{what}: not within {PATIENCE:?}"))
}
