//! The guest's bluetoothd: a fresh one for every story, and whenever a device's plug is pulled.
//! Whenever it ends by itself, another takes its place, as a service manager would see to it.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::{
    process::{Child, Command},
    sync::oneshot,
    task::JoinHandle,
};

use crate::stories::{
    nodes::{ADAPTERS, connections, cut_the_air, system},
    say, until,
};

/// bluetoothd, which serves both adapters.
pub(crate) struct Stack {
    running: Option<Running>,
    ended_itself: Arc<AtomicU32>,
}

struct Running {
    enough: oneshot::Sender<()>,
    watch: JoinHandle<anyhow::Result<()>>,
}

impl Stack {
    pub(crate) fn new() -> Self {
        Self { running: None, ended_itself: Arc::default() }
    }

    /// How often it has ended without being asked to. BlueZ 5.66 does now and then when a
    /// connection over GATT ends.
    pub(crate) fn ended_itself(&self) -> u32 {
        self.ended_itself.load(Ordering::Relaxed)
    }

    /// Ends bluetoothd, if it runs, and starts another that remembers nothing; gives it back once
    /// both adapters are on. Nodes have to be off.
    pub(crate) async fn renew(&mut self) -> anyhow::Result<()> {
        self.end().await?;
        if let Err(error) = tokio::fs::remove_dir_all(MEMORY).await {
            ensure!(error.kind() == std::io::ErrorKind::NotFound, "{MEMORY}: {error}");
        }
        tokio::fs::create_dir_all(MEMORY).await?;
        let (enough, stop) = oneshot::channel();
        let watch = tokio::spawn(keep_up(start()?, stop, Arc::clone(&self.ended_itself)));
        self.running = Some(Running { enough, watch });
        until("both adapters", || async {
            let on = transport::bluetooth::survey().await.unwrap_or_default();
            Ok(ADAPTERS.iter().all(|name| on.iter().any(|one| one.name == *name && one.powered)).then_some(()))
        })
        .await
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        let Some(Running { enough, watch }) = self.running.take() else { return Ok(()) };
        // It switches the adapters off, which Linux 6.1 does not survive under a connection with
        // channels.
        let asked = Instant::now();
        let last_trouble = std::cell::RefCell::new(None);
        until("silence on the air", || async {
            if connections().await?.is_empty() {
                return Ok(Some(()));
            }
            if asked.elapsed() > LETTING_GO {
                // A program that was killed leaves its connection to bluetoothd, which keeps it.
                if let Err(error) = cut_the_air().await {
                    // It is ending already, or what holds it is stuck.
                    last_trouble.replace(Some(error.to_string()));
                }
                tokio::time::sleep(CUTTING).await;
            }
            Ok(None)
        })
        .await
        .with_context(|| format!("cutting it: {:?}", last_trouble.borrow()))?;
        if asked.elapsed() > LETTING_GO {
            say("a connection that nobody held any more was cut");
        }
        if enough.send(()).is_err() {
            say("bluetoothd could not be started again");
        }
        watch.await?
    }
}

fn start() -> anyhow::Result<Child> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(LOG)?;
    Ok(Command::new("/usr/libexec/bluetooth/bluetoothd")
        .arg("-n")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?)
}

/// Starts it again and again until it is no longer wanted.
async fn keep_up(
    mut daemon: Child,
    mut stop: oneshot::Receiver<()>,
    ended_itself: Arc<AtomicU32>,
) -> anyhow::Result<()> {
    loop {
        let status = tokio::select! {
            status = daemon.wait() => status?,
            _ = &mut stop => break,
        };
        ended_itself.fetch_add(1, Ordering::Relaxed);
        say(&format!("bluetoothd ended by itself ({status}): it is started again"));
        daemon = start()?;
    }
    let pid = daemon.id().context("bluetoothd has no id")?.to_string();
    system(&["kill", &pid]).await?;
    daemon.wait().await?;
    Ok(())
}

/// A program that ends in order says goodbye first.
const LETTING_GO: Duration = Duration::from_secs(3);
const CUTTING: Duration = Duration::from_secs(1);
const LOG: &str = "/tmp/bluetoothd.log";
const MEMORY: &str = "/var/lib/bluetooth";
