//! Nodes and the simulator, each in a process of its own. They end when they are dropped.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a process may take until it is ready.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Most of what a process says is only wanted when it fails.
const LOG_BYTES_MAX: u64 = 4 * 1024;

/// What `run` and `relay` say with `--json` once they are ready.
#[derive(Debug, Deserialize)]
struct NodeReady {
    api: Option<SocketAddr>,
    #[serde(default)]
    addresses: Vec<String>,
}

/// What `mpesa-simulator` says with `--json` once it is ready.
#[derive(Debug, Deserialize)]
struct SimulatorReady {
    base_url: String,
}

/// How a node is launched.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) folder: PathBuf,
    /// `run` or `relay`.
    pub(crate) command: &'static str,
    pub(crate) more: Vec<OsString>,
}

impl Launch {
    pub(crate) fn till(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), command: "run", more: Vec::new() }
    }

    pub(crate) fn peer(mut self, address: &str) -> Self {
        self.more.extend(["--peer".into(), address.into()]);
        self
    }
}

/// A node in a process of its own.
#[derive(Debug)]
pub(crate) struct ChildNode {
    child: Child,
    pub(crate) api: SocketAddr,
    pub(crate) addresses: Vec<String>,
}

impl ChildNode {
    pub(crate) async fn start(launch: &Launch) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args([launch.command, "--json", "--api", "127.0.0.1:0", "--no-mdns"])
            .args(["--listen", "/ip4/127.0.0.1/tcp/0", "--data"])
            .arg(&launch.folder)
            .args(&launch.more);
        let log = launch.folder.join(format!("{}.log", launch.command));
        let (child, ready) = spawn::<NodeReady>(command, &log).await?;
        Ok(Self { child, api: ready.api.context("the node has no API")?, addresses: ready.addresses })
    }

    /// Where its links listen for TCP.
    pub(crate) fn tcp_address(&self) -> anyhow::Result<&str> {
        self.addresses
            .iter()
            .find(|address| address.contains("/tcp/"))
            .map(String::as_str)
            .context("the node listens on no TCP address")
    }

    /// Kills it without a word, as a power cut would.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// The memory that it has resident, in bytes. Source: /proc/PID/status, VmRSS.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<u64> {
        let pid = self.child.id().context("the node has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib * 1024)
    }
}

/// The payment provider's simulator in a process of its own.
#[derive(Debug)]
pub(crate) struct Simulator {
    _child: Child,
    pub(crate) base_url: String,
}

impl Simulator {
    pub(crate) async fn start(at: &Path, credentials: &Path, seed: u64) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["mpesa-simulator", "--json", "--listen", "127.0.0.1:0", "--decline-percent", "15"])
            .args(["--seed", &seed.to_string(), "--credentials-out"])
            .arg(credentials);
        let (child, ready) = spawn::<SimulatorReady>(command, &at.join("mpesa-simulator.log")).await?;
        Ok(Self { _child: child, base_url: ready.base_url })
    }
}

/// Starts a process and reads the line that says that it is ready.
async fn spawn<T: DeserializeOwned>(mut command: Command, log: &Path) -> anyhow::Result<(Child, T)> {
    let errors = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .kill_on_drop(true)
        .spawn()
        .context("the process could not be started")?;
    let stdout = child.stdout.take().context("the process has no output")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = tokio::time::timeout(START_PATIENCE, lines.next_line()).await.context("it took too long to start")??;
    let Some(line) = line else {
        anyhow::bail!("a process did not start: {}", tail(log));
    };
    let ready = serde_json::from_str(&line).with_context(|| format!("its first line can't be read: {line}"))?;
    // What it says later is read too, or it would wait for a reader one day.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok((child, ready))
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let from = text.len().saturating_sub(usize::try_from(LOG_BYTES_MAX).unwrap_or(usize::MAX));
    String::from_utf8_lossy(text.get(from..).unwrap_or_default()).into_owned()
}
