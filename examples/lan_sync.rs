//! Two tills of one business, each a node with a folder of its own, on real sockets: one founds
//! the business, the other joins with an invitation, and a sale on either shows up on both.

#![allow(clippy::print_stdout)]

use std::time::Duration;

use anyhow::Context;
use crdt_model::money::Currency;
use crdt_model::record::{Kind, Line, Role, TenderKind};
use tillmesh_node::folder;
use tillmesh_node::join::{JoinConfig, join};
use tillmesh_node::node::{Node, NodeConfig};
use tillmesh_node::operations::{self, NewSale, NewTender};
use tillmesh_node::shop_loop::now;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folders = tempfile::tempdir()?;
    let (first, second) = (folders.path().join("first"), folders.path().join("second"));

    folder::found(&first, "Duka", Currency::KES, 180, "till 1", now())?;
    let till_1 = Node::start(on_loopback(&first)).await?;
    println!("till 1 listens on {}", till_1.addresses().join(" and "));

    let invitation = till_1.invite(Role::Till).await?;
    println!("till 1 invites: {invitation}");
    let config = JoinConfig { name: "till 2".to_owned(), peers: Vec::new(), mdns: false };
    let certificate = join(&second, &invitation, config).await?;
    println!("{} joined as {}", certificate.name, certificate.device);
    let till_2 = Node::start(on_loopback(&second)).await?;

    sell(&till_1, 1).await?;
    wait_for_sales(&till_2, 1).await.context("till 2 did not hear of the sale on till 1")?;
    println!("till 2 has the sale of till 1");

    sell(&till_2, 3).await?;
    wait_for_sales(&till_1, 2).await.context("till 1 did not hear of the sale on till 2")?;
    println!("till 1 has the sale of till 2");

    till_2.stop().await.map_err(anyhow::Error::msg)?;
    till_1.stop().await.map_err(anyhow::Error::msg)
}

/// QUIC and TCP on free ports of this machine alone; tills in a shop use the default addresses.
fn on_loopback(data: &std::path::Path) -> NodeConfig {
    let mut config = NodeConfig::new(data);
    config.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".to_owned(), "/ip4/127.0.0.1/tcp/0".to_owned()];
    config
}

async fn sell(till: &Node, loaves: i64) -> anyhow::Result<()> {
    let line = Line {
        sku: "BREAD".to_owned(),
        quantity_milli: loaves * 1000,
        unit_price_minor: 6500,
        discount_minor: 0,
        tax_rate_bp: None,
    };
    let new = NewSale {
        source: None,
        occurred: None,
        currency: Currency::KES,
        lines: vec![line],
        tenders: vec![NewTender { kind: TenderKind::Cash, amount_minor: loaves * 6500, phone: None }],
        customer: None,
        note: None,
        ticket: None,
    };
    let planned = operations::sale(till.shop(), new).await?;
    till.shop().record(planned.operation).await?;
    Ok(())
}

/// Looks again at every hint that something changed.
async fn wait_for_sales(till: &Node, wanted: usize) -> anyhow::Result<()> {
    let mut changes = till.shop().changes();
    let seen = async {
        while till.shop().ask(|shop| shop.books().count_of(Kind::Sale)).await? < wanted {
            changes.recv().await?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, seen).await?
}
