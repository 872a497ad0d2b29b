//! What `tillmesh doctor` says of a machine with Bluetooth.

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::stories::{
    nodes::{ADAPTERS, Story, system},
    say,
};

/// Two adapters with both roles and a fixed address; then one of them is off.
pub(crate) async fn the_doctor_sees_the_adapters() -> anyhow::Result<()> {
    let story = Story::new("doctor")?;
    story.found("first", "GBP").await?;
    let checks = checks(&story).await?;
    for (name, verdict) in [
        ("bluetooth permission", ["ok"].as_slice()),
        ("bluetooth adapter", &["ok", "ok"]),
        ("bluetooth roles", &["ok", "ok"]),
        ("bluetooth address", &["warn", "warn"]),
    ] {
        ensure!(verdicts(&checks, name) == verdict, "{name}: {checks:?}");
    }
    say(&format!(
        "{}",
        checks.iter().find(|check| check["name"] == "bluetooth address").context("no address")?["found"]
    ));
    system(&["hciconfig", ADAPTERS[1], "down"]).await?;
    let checks = self::checks(&story).await?;
    ensure!(verdicts(&checks, "bluetooth adapter") == ["ok", "warn"], "{checks:?}");
    let advised =
        |check: &Value| ["ok", "unknown"].iter().any(|calm| check["verdict"] == *calm) || check["advice"].is_string();
    ensure!(checks.iter().all(advised), "trouble without advice: {checks:?}");
    system(&["hciconfig", ADAPTERS[1], "up"]).await
}

async fn checks(story: &Story) -> anyhow::Result<Vec<Value>> {
    let words = ["doctor", "--no-mdns", "--json", "--data"];
    let told = Command::new("tillmesh").args(words).arg(story.path("first")).output().await?;
    let told: Value = serde_json::from_slice(&told.stdout)?;
    told["checks"].as_array().cloned().context("no checks")
}

fn verdicts<'c>(checks: &'c [Value], name: &str) -> Vec<&'c str> {
    checks.iter().filter(|check| check["name"] == name).filter_map(|check| check["verdict"].as_str()).collect()
}
