//! Looks at a machine and says what would keep a node from working well, each with what to do.

mod air;
mod machine;
mod multicast;

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

/// What is looked at.
#[derive(Debug, Clone)]
pub struct DoctorConfig {
    /// The data folder; it need not exist.
    pub data: PathBuf,
    /// Whether to send a question by multicast.
    pub multicast: bool,
    /// Whether Bluetooth is wanted.
    pub bluetooth: bool,
    /// What `GET /api/peers` of the running node says, if one runs.
    pub peers: Option<Value>,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could.
    Warn,
    /// Something does not work.
    Fail,
    /// It was not looked at, or can't be told here.
    Unknown,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it, if there is something to do.
    pub advice: Option<String>,
}

impl Check {
    fn new(name: &'static str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self { name, verdict, found: found.into(), advice: None }
    }

    fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// Looks at everything; takes a few seconds, as it listens for answers.
pub async fn examine(config: DoctorConfig) -> Vec<Check> {
    let mut checks = machine::examine(&config.data);
    checks.extend(air::examine(config.bluetooth).await);
    checks.extend(multicast::examine(config.multicast).await);
    checks.push(multicast::isolation(config.peers.as_ref()));
    checks
}
