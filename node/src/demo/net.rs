//! The demo's processes and the wires between them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use crdt_model::money::Currency;
use serde_json::{Value, json};

use super::DemoConfig;
use super::books::Api;
use crate::folder;
use crate::join::{self, Invitation, JoinConfig};
use crate::lab::{ChildNode, Launch, Simulator, Wire};
use crate::shop_loop::now;

/// The clocks of East Africa.
const UTC_OFFSET_MINUTES: i32 = 180;

/// Tills `0..tills`, then the relay, and a wire for each pair: the later one dials the earlier.
pub(super) struct Net {
    at: PathBuf,
    tills: usize,
    nodes: Vec<Option<ChildNode>>,
    folders: Vec<PathBuf>,
    wires: BTreeMap<(usize, usize), Wire>,
    simulator: Option<Simulator>,
    http: reqwest::Client,
}

impl Net {
    pub(super) async fn build(config: &DemoConfig, at: &Path, currency: Currency) -> anyhow::Result<Self> {
        let tills = config.tills;
        let mut net = Self {
            at: at.to_owned(),
            tills,
            nodes: (0..=tills).map(|_| None).collect(),
            folders: (0..=tills).map(|index| at.join(name_of(index, tills))).collect(),
            wires: BTreeMap::new(),
            simulator: None,
            http: reqwest::Client::builder().no_proxy().build()?,
        };
        for late in 0..=tills {
            for early in 0..late {
                net.wires.insert((early, late), Wire::new().await?);
            }
        }
        if currency == Currency::KES {
            net.simulator = Some(Simulator::start(at, &net.credentials(), config.seed).await?);
        }
        let offset = if currency == Currency::KES { UTC_OFFSET_MINUTES } else { 0 };
        folder::found(net.folder(0), "Demo Duka", currency, offset, "till 1", now())?;
        net.start(0).await?;
        for index in 1..=tills {
            net.join(index).await?;
            net.start(index).await?;
        }
        Ok(net)
    }

    fn credentials(&self) -> PathBuf {
        self.at.join("mpesa.toml")
    }

    pub(super) fn relay(&self) -> usize {
        self.tills
    }

    pub(super) fn folder(&self, index: usize) -> &Path {
        self.folders.get(index).map_or(self.at.as_path(), PathBuf::as_path)
    }

    fn node(&self, index: usize) -> anyhow::Result<&ChildNode> {
        self.nodes.get(index).and_then(Option::as_ref).with_context(|| format!("{} is off", name_of(index, self.tills)))
    }

    pub(super) fn api(&self, index: usize) -> anyhow::Result<Api> {
        Ok(Api::new(self.http.clone(), self.node(index)?.api))
    }

    pub(super) fn apis(&self) -> Vec<SocketAddr> {
        self.nodes.iter().take(self.tills).flatten().map(|node| node.api).collect()
    }

    /// What the provider really charged.
    pub(super) async fn charges(&self) -> anyhow::Result<Vec<Value>> {
        let Some(simulator) = &self.simulator else { return Ok(Vec::new()) };
        let url = format!("{}/simulator/ledger", simulator.base_url);
        Ok(self.http.get(url).send().await?.error_for_status()?.json().await?)
    }

    /// Bytes that passed all wires so far.
    pub(super) fn bytes(&self) -> u64 {
        self.wires.values().map(Wire::bytes).sum()
    }

    /// Lets the first till invite a device, and the device join.
    pub(super) async fn join(&self, index: usize) -> anyhow::Result<()> {
        let relay = index == self.relay();
        let role = if relay { "relay" } else { "till" };
        let answer = self.api(0)?.post("/api/invitations", &json!({ "role": role })).await?;
        let text = answer.get("invitation").and_then(Value::as_str).context("no invitation was given")?;
        let mut invitation: Invitation = text.parse()?;
        self.mend(0, index)?;
        // The way that is remembered has to be the wire, or it could not be cut.
        invitation.addresses = vec![self.dial_address(0, index)?];
        let config = JoinConfig { name: name_of(index, self.tills), peers: Vec::new(), mdns: false };
        join::join(self.folder(index), &invitation, config).await?;
        Ok(())
    }

    /// Starts a device and mends its wires.
    pub(super) async fn start(&mut self, index: usize) -> anyhow::Result<()> {
        let mut launch = Launch::till(self.folder(index));
        if index == self.relay() {
            launch.command = "relay";
            if self.simulator.is_some() {
                launch.more.extend(["--callbacks".into(), "127.0.0.1:0".into(), "--mpesa".into()]);
                launch.more.push(self.credentials().into());
            }
        }
        for early in 0..index {
            launch = launch.peer(&self.dial_address(early, index)?);
        }
        let node = ChildNode::start(&launch).await?;
        if let Some(slot) = self.nodes.get_mut(index) {
            *slot = Some(node);
        }
        Ok(())
    }

    /// Pulls the plug of a device.
    pub(super) async fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        if let Some(node) = self.nodes.get_mut(index).and_then(Option::take) {
            node.kill().await?;
        }
        Ok(())
    }

    fn wire(&self, a: usize, b: usize) -> anyhow::Result<&Wire> {
        self.wires.get(&(a.min(b), a.max(b))).context("there is no such wire")
    }

    /// Where `late` dials to reach `early`.
    fn dial_address(&self, early: usize, late: usize) -> anyhow::Result<String> {
        Ok(self.wire(early, late)?.dial_address())
    }

    pub(super) fn cut(&self, a: usize, b: usize) -> anyhow::Result<()> {
        self.wire(a, b)?.cut();
        Ok(())
    }

    pub(super) fn mend(&self, a: usize, b: usize) -> anyhow::Result<()> {
        self.wire(a, b)?.mend(self.node(a.min(b))?.tcp_address()?)
    }

    /// Mends every wire between devices that are on.
    pub(super) fn mend_all(&self) -> anyhow::Result<()> {
        for (early, late) in self.wires.keys() {
            if self.node(*early).is_ok() && self.node(*late).is_ok() {
                self.mend(*early, *late)?;
            }
        }
        Ok(())
    }

    pub(super) fn cut_all(&self) {
        self.wires.values().for_each(Wire::cut);
    }

    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        for index in 0..self.nodes.len() {
            self.kill(index).await?;
        }
        Ok(())
    }
}

fn name_of(index: usize, tills: usize) -> String {
    if index == tills { "relay".to_owned() } else { format!("till-{}", index + 1) }
}
