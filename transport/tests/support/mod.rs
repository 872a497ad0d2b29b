//! Real nodes on loopback, and what the tests ask of them.

#![allow(dead_code, reason = "each test file uses a part")]

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use transport::{Lan, LanConfig, LanEvent, Limits, Link, PeerKey};

pub(crate) const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub(crate) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
/// Longer than anything here takes on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Node {
    pub(crate) lan: Lan,
    pub(crate) events: mpsc::Receiver<LanEvent>,
}

impl Node {
    pub(crate) async fn start(secret: u8, listen: &[&str]) -> Self {
        Self::start_with(config(secret, listen)).await
    }

    pub(crate) async fn start_with(config: LanConfig) -> Self {
        let (lan, events) = Lan::start(config).await.unwrap();
        Self { lan, events }
    }

    pub(crate) fn know(&self, other: &Node) {
        for address in other.lan.addresses() {
            self.lan.add_peer_address(None, &address).unwrap();
        }
    }

    pub(crate) async fn event(&mut self) -> LanEvent {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("no event").expect("the transport ended")
    }

    /// The next link; hints are passed over.
    pub(crate) async fn link(&mut self) -> Link {
        loop {
            if let LanEvent::Link(link) = self.event().await {
                return link;
            }
        }
    }
}

pub(crate) fn config(secret: u8, listen: &[&str]) -> LanConfig {
    LanConfig {
        listen: listen.iter().map(|address| (*address).to_owned()).collect(),
        other_protocols: vec!["/tillmesh/join/1"],
        ..LanConfig::new([secret; 32])
    }
}

pub(crate) fn key(secret: u8) -> PeerKey {
    PeerKey::from_secret(&[secret; 32]).unwrap()
}

/// Two nodes with one link over the given kind of address.
pub(crate) async fn linked(listen: &str, limits: Limits) -> (Node, Node, Link, Link) {
    let mut near = Node::start_with(LanConfig { limits, ..config(1, &[listen]) }).await;
    let mut far = Node::start(2, &[listen]).await;
    near.know(&far);
    let (near_link, far_link) = tokio::join!(near.link(), far.link());
    (near, far, near_link, far_link)
}

pub(crate) async fn send(link: &mut Link, frame: impl Into<Bytes>) {
    let sent = tokio::time::timeout(PATIENCE, link.frames_out.send(frame.into())).await;
    sent.expect("the queue stayed full").unwrap();
}

pub(crate) async fn receive(link: &mut Link) -> Bytes {
    ended_or_frame(link).await.expect("the link ended").unwrap()
}

pub(crate) async fn ended_or_frame(link: &mut Link) -> Option<Result<Bytes, transport::LinkError>> {
    let next = tokio::time::timeout(PATIENCE, link.frames_in.next()).await;
    next.expect("nothing arrived")
}

/// A frame each way.
pub(crate) async fn assert_carries(near: &mut Link, far: &mut Link) {
    send(near, "mambo").await;
    assert_eq!(receive(far).await, "mambo");
    send(far, "poa").await;
    assert_eq!(receive(near).await, "poa");
}
