//! A till is lost, folder and all. The relay had its sales, and a new device gets them back.

#![allow(clippy::print_stdout)]

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use crdt_model::books::Sheet;
use crdt_model::money::{Currency, Money};
use crdt_model::record::{Expense, Fact, Kind, Role, TenderKind};
use crdt_model::shop::{Operation, Shop};
use tillmesh_node::folder;
use tillmesh_node::join::{JoinConfig, join};
use tillmesh_node::node::{Node, NodeConfig};
use tillmesh_node::shop_loop::now;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folders = tempfile::tempdir()?;
    let at = |name: &str| folders.path().join(name);

    folder::found(&at("office"), "Duka", Currency::KES, 180, "office", now())?;
    let office = Node::start(on_loopback(&at("office"), &[])).await?;
    admit(&office, &at("relay"), "relay", Role::Relay).await?;
    let relay = Node::start(on_loopback(&at("relay"), &[])).await?;
    admit(&office, &at("till"), "till 1", Role::Till).await?;
    let till = Node::start(on_loopback(&at("till"), &relay.addresses())).await?;

    for amount_minor in [5_000, 12_500, 700] {
        till.shop().record(spent(amount_minor)).await?;
    }
    wait_until(&till, "the relay has everything", |shop| shop.status().pending == 0).await?;
    let books = sums(&till).await?;
    till.stop().await.map_err(anyhow::Error::msg)?;
    std::fs::remove_dir_all(at("till"))?;
    println!("the till is lost; three expenses were on it");

    // From here on the office is shut: only the relay can give them back.
    admit(&office, &at("new till"), "till 1 again", Role::Till).await?;
    office.stop().await.map_err(anyhow::Error::msg)?;
    let till = Node::start(on_loopback(&at("new till"), &relay.addresses())).await?;

    wait_until(&till, "the new till has everything", |shop| shop.books().count_of(Kind::Expense) == 3).await?;
    ensure!(sums(&till).await? == books, "the books must be the same, to the cent");
    println!("the new till has the same books, to the cent");

    till.stop().await.map_err(anyhow::Error::msg)?;
    relay.stop().await.map_err(anyhow::Error::msg)
}

fn on_loopback(data: &Path, peers: &[String]) -> NodeConfig {
    let mut config = NodeConfig::new(data);
    config.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".to_owned(), "/ip4/127.0.0.1/tcp/0".to_owned()];
    config.peers = peers.to_vec();
    config
}

/// Invites a device and lets it join.
async fn admit(office: &Node, data: &Path, name: &str, role: Role) -> anyhow::Result<()> {
    let invitation = office.invite(role).await?;
    let config = JoinConfig { name: name.to_owned(), peers: Vec::new(), mdns: false };
    join(data, &invitation, config).await.with_context(|| format!("{name} could not join"))?;
    Ok(())
}

fn spent(amount_minor: i64) -> Operation {
    let expense = Expense {
        source: None,
        occurred: None,
        category: "transport".to_owned(),
        amount: Money::new(amount_minor, Currency::KES),
        description: None,
        paid_with: TenderKind::Cash,
    };
    Operation { facts: vec![Fact::Expense(expense)], ..Operation::default() }
}

async fn sums(node: &Node) -> anyhow::Result<Sheet> {
    Ok(node.shop().ask(|shop| shop.books().business().clone()).await?)
}

/// Looks again at every hint that something changed, and now and then without one.
async fn wait_until(node: &Node, what: &str, holds: fn(&Shop) -> bool) -> anyhow::Result<()> {
    let mut changes = node.shop().changes();
    let watched = async {
        while !node.shop().ask(holds).await? {
            drop(tokio::time::timeout(Duration::from_millis(50), changes.recv()).await);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, watched).await.with_context(|| format!("waited in vain until {what}"))??;
    println!("{what}");
    Ok(())
}
