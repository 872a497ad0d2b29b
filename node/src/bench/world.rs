//! Folders of one business, filled with sales.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use crdt_model::money::Currency;
use crdt_model::record::{Certificate, Fact, Line, Role, Sale, Source, Tender, TenderKind};
use crdt_model::shop::Operation;
use ed25519_dalek::SigningKey;
use futures::{StreamExt, TryStreamExt, stream};

use crate::folder::{self, Admission};
use crate::node::{Node, NodeConfig};
use crate::operations::{Edit, ProductFields, create_product};
use crate::shop_loop::now;

/// Sales that are recorded at once, so that they share commits.
const AT_ONCE: usize = 512;
/// How many products the shop sells.
const PRODUCTS: u64 = 400;

/// The `number`th sale of a shop's day: three lines of some hundred products, paid in cash, with
/// a random client id as apps give them. About 300 bytes of JSON.
pub(super) fn sale(number: u64) -> Operation {
    let random = blake3::hash(&number.to_le_bytes());
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(random.as_bytes().split_at(16).0);
    let key = uuid::Uuid::new_v8(bytes).to_string();
    let lines: Vec<Line> = (0..3_u64)
        .map(|index| {
            let product = (number * 7 + index * 31) % PRODUCTS;
            Line {
                sku: sku(product),
                quantity_milli: i64::try_from(number % 4 + 1).unwrap_or(1) * 1000,
                unit_price_minor: i64::try_from(product).unwrap_or(0) * 25 + 500,
                discount_minor: 0,
                tax_rate_bp: Some(1600),
            }
        })
        .collect();
    let amount_minor = lines.iter().filter_map(|line| line.amount_minor().ok()).sum();
    let sale = Sale {
        source: Some(Source { instance: "till-1".to_owned(), key }),
        occurred: None,
        currency: Currency::KES,
        lines,
        tenders: vec![Tender { kind: TenderKind::Cash, amount_minor }],
        customer: None,
        note: None,
        ticket: None,
    };
    Operation { facts: vec![Fact::Sale(sale)], ..Operation::default() }
}

/// The same sale as the API takes it.
pub(super) fn sale_json(number: u64) -> String {
    let operation = sale(number);
    let Some(Fact::Sale(sale)) = operation.facts.first() else { return String::new() };
    let lines: Vec<_> = sale
        .lines
        .iter()
        .map(|line| {
            serde_json::json!({
                "sku": line.sku,
                "quantity_milli": line.quantity_milli,
                "unit_price_minor": line.unit_price_minor,
                "tax_rate_bp": line.tax_rate_bp,
            })
        })
        .collect();
    let amount: i64 = sale.tenders.iter().map(|tender| tender.amount_minor).sum();
    serde_json::json!({
        "operation_id": sale.source.as_ref().map(|source| &source.key),
        "currency": "KES",
        "lines": lines,
        "tenders": [{"kind": "cash", "amount_minor": amount}],
    })
    .to_string()
}

/// Two tills of one business.
pub(super) struct Pair {
    pub(super) first: PathBuf,
    pub(super) second: PathBuf,
}

impl Pair {
    pub(super) fn found(at: &Path, name: &str) -> anyhow::Result<Self> {
        Self::found_as(at, name, Role::Till)
    }

    /// The second of them in another role.
    pub(super) fn found_as(at: &Path, name: &str, role: Role) -> anyhow::Result<Self> {
        let (first, second) = (at.join(format!("{name}-first")), at.join(format!("{name}-second")));
        folder::found(&first, "Bench", Currency::KES, 180, "first", now())?;
        let opened = folder::open(&first, None)?;
        let owner = opened.owner.context("the founder owns the business")?;
        let key: [u8; 32] = folder::random()?;
        let device = crdt_model::ids::DeviceId(SigningKey::from_bytes(&key).verifying_key().to_bytes());
        let genesis = opened.identity.genesis;
        let certificate = Certificate::sign(genesis.business(), device, "second".to_owned(), role, now(), &owner);
        let discovery_secret = opened.discovery_secret;
        let admission = Admission { genesis, certificate, discovery_secret, introducers: Vec::new() };
        folder::create(&second, &admission, &key, None)?;
        Ok(Self { first, second })
    }
}

/// A folder of one till.
pub(super) fn till(at: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = at.join(name);
    folder::found(&path, "Bench", Currency::KES, 180, "till", now())?;
    Ok(path)
}

/// A folder of one till with every product of the sales in its catalogue.
pub(super) async fn stocked_till(at: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = till(at, name)?;
    let node = Node::start(NodeConfig::new(&path)).await?;
    for product in 0..PRODUCTS {
        let fields = ProductFields {
            name: Edit::Set(format!("Product {product}")),
            price_minor: Edit::Set(i64::try_from(product).unwrap_or(0) * 25 + 500),
            ..ProductFields::default()
        };
        let planned = create_product(node.shop(), &sku(product), &fields).await?;
        node.shop().record(planned.operation).await?;
    }
    node.stop().await.map_err(anyhow::Error::msg)?;
    Ok(path)
}

fn sku(product: u64) -> String {
    format!("SKU-{product:04}")
}

/// Records sales `from..to`, many at once.
pub(super) async fn sell(node: &Node, from: u64, to: u64) -> anyhow::Result<()> {
    let shop = Arc::new(node.shop().clone());
    stream::iter(from..to)
        .map(|number| {
            let shop = Arc::clone(&shop);
            async move { shop.record(sale(number)).await.map(drop) }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    Ok(())
}

/// Fills a folder with sales and closes it.
pub(super) async fn fill(folder: &Path, sales: u64) -> anyhow::Result<()> {
    let node = Node::start(NodeConfig::new(folder)).await?;
    sell(&node, 0, sales).await?;
    node.stop().await.map_err(anyhow::Error::msg)
}

/// The stored entries of a node, as bytes.
pub(super) fn stored_entries(node: &Node) -> anyhow::Result<Vec<Vec<u8>>> {
    let reader = node.shop().reader();
    let mut rows = Vec::new();
    for journal in reader.journals(None, 100)? {
        let end = reader.entries(journal, 0..=u64::MAX, crate::storage::ReadLimits::NONE, &mut |_, bytes| {
            rows.push(bytes.to_vec());
            std::ops::ControlFlow::Continue(())
        })?;
        anyhow::ensure!(end == crate::storage::ReadEnd::Finished, "entries were left out");
    }
    Ok(rows)
}
