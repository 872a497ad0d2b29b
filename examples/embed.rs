//! A shop inside an app: a business is founded in a folder, a sale recorded and read back, all in
//! this process, without a network or an HTTP API.

#![allow(clippy::print_stdout)]

use anyhow::ensure;
use crdt_model::books::Figure;
use crdt_model::money::{Currency, Money};
use crdt_model::record::{Line, Source, TenderKind};
use tillmesh_node::folder;
use tillmesh_node::node::{Node, NodeConfig};
use tillmesh_node::operations::{self, NewSale, NewTender};
use tillmesh_node::shop_loop::now;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let founded = folder::found(data.path(), "Duka", Currency::KES, 180, "counter", now())?;
    println!("founded {} with device {}", founded.genesis.business(), founded.device);

    let node = Node::start(NodeConfig::new(data.path())).await?;
    let planned = operations::sale(node.shop(), two_loaves("order-1")).await?;
    for warning in &planned.warnings {
        println!("note: {warning:?}");
    }
    let recorded = node.shop().record(planned.operation).await?;
    for record in &recorded.records {
        println!("recorded sale {record}; it is on the disk");
    }

    // The app may not know whether its first request arrived: the same id never sells twice.
    let again = operations::sale(node.shop(), two_loaves("order-1")).await?;
    let again = node.shop().record(again.operation).await?;
    ensure!(again.repeated && again.records == recorded.records, "a repeated sale must be the same sale");

    check_takings(&node).await?;
    node.stop().await.map_err(anyhow::Error::msg)?;

    // Everything is still there the next morning.
    let node = Node::start(NodeConfig::new(data.path())).await?;
    check_takings(&node).await?;
    node.stop().await.map_err(anyhow::Error::msg)
}

fn two_loaves(order: &str) -> NewSale {
    let line = Line {
        sku: "BREAD".to_owned(),
        quantity_milli: 2000,
        unit_price_minor: 6500,
        discount_minor: 0,
        tax_rate_bp: None,
    };
    NewSale {
        source: Some(Source { instance: "my-app".to_owned(), key: order.to_owned() }),
        occurred: None,
        currency: Currency::KES,
        lines: vec![line],
        tenders: vec![NewTender { kind: TenderKind::Cash, amount_minor: 13_000, phone: None }],
        customer: None,
        note: None,
        ticket: None,
    }
}

async fn check_takings(node: &Node) -> anyhow::Result<()> {
    let (sales, net_minor) = node
        .shop()
        .ask(|shop| {
            let tally = shop.books().business().currency(Currency::KES);
            (tally.of(Figure::Sales), tally.net_minor())
        })
        .await?;
    println!("the books have {sales} sale: {}", Money::new(i64::try_from(net_minor)?, Currency::KES));
    ensure!((sales, net_minor) == (1, 13_000), "one sale of KES 130.00 was made");
    Ok(())
}
