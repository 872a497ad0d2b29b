//! The guest's bluetoothd: a fresh one for every story, and whenever a device's plug is pulled.

use std::{
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use tokio::process::{Child, Command};

use crate::stories::{
    PATIENCE,
    nodes::{ADAPTERS, connections, cut_the_air, system},
    say, until,
};

/// bluetoothd, which serves both adapters.
pub(crate) struct Stack {
    daemon: Option<Child>,
    /// How often it has ended without being asked to. BlueZ 5.66 may, when a program is killed that
    /// it has just asked something.
    pub(crate) ended_itself: u32,
}

impl Stack {
    pub(crate) fn new() -> Self {
        Self { daemon: None, ended_itself: 0 }
    }

    /// Ends bluetoothd, if it runs, and starts another that remembers nothing; gives it back once
    /// both adapters are on. Nodes have to be off.
    pub(crate) async fn renew(&mut self) -> anyhow::Result<()> {
        self.end().await?;
        if let Err(error) = tokio::fs::remove_dir_all(MEMORY).await {
            ensure!(error.kind() == std::io::ErrorKind::NotFound, "{MEMORY}: {error}");
        }
        tokio::fs::create_dir_all(MEMORY).await?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(LOG)?;
        let daemon = Command::new("/usr/libexec/bluetooth/bluetoothd")
            .arg("-n")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        self.daemon = Some(daemon);
        until("both adapters", || async {
            let on = transport::bluetooth::survey().await.unwrap_or_default();
            Ok(ADAPTERS.iter().all(|name| on.iter().any(|one| one.name == *name && one.powered)).then_some(()))
        })
        .await
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        if let Some(status) = daemon.try_wait()? {
            self.died(status);
            return Ok(());
        }
        // It switches the adapters off, which Linux 6.1 does not survive under a connection with
        // channels.
        let asked = Instant::now();
        until("silence on the air", || async {
            if connections().await?.is_empty() {
                return Ok(Some(()));
            }
            if asked.elapsed() > LETTING_GO {
                // A program that was killed leaves its connection to bluetoothd, which keeps it.
                match cut_the_air().await {
                    Ok(()) => say("a connection that nobody held any more was cut"),
                    Err(error) => say(&format!("the last connection went by itself: {error}")),
                }
            }
            Ok(None)
        })
        .await?;
        if let Some(status) = daemon.try_wait()? {
            self.died(status);
            return Ok(());
        }
        let pid = daemon.id().context("bluetoothd has no id")?.to_string();
        system(&["kill", &pid]).await?;
        match tokio::time::timeout(PATIENCE, daemon.wait()).await {
            Ok(ended) => ended.map(drop)?,
            Err(_) => bail!("bluetoothd does not end"),
        }
        Ok(())
    }

    fn died(&mut self, status: ExitStatus) {
        self.ended_itself += 1;
        say(&format!("bluetoothd had ended by itself: {status}"));
    }
}

/// A program that ends in order says goodbye first.
const LETTING_GO: Duration = Duration::from_secs(3);
const LOG: &str = "/tmp/bluetoothd.log";
const MEMORY: &str = "/var/lib/bluetooth";
