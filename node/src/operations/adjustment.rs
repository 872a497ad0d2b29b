//! Stock that came, went or was counted.

use crdt_model::record::{Fact, Source, StockCount, StockMovement};
use crdt_model::time::Timestamp;

use super::product::product_is_listed;
use super::{PlanError, Planned, counted_fact, named_record};
use crate::shop_handle::ShopHandle;

/// A correction of one product's stock.
#[derive(Debug, Clone)]
pub struct NewAdjustment {
    /// The client's own id.
    pub source: Option<Source>,
    /// When it happened, if not now; for movements only.
    pub occurred: Option<Timestamp>,
    /// The product.
    pub sku: String,
    /// What happened.
    pub adjusted: Adjusted,
}

/// What happened to a product's stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adjusted {
    /// It came (positive) or went (negative), in thousandths of a unit.
    Moved {
        /// How much.
        quantity_milli: i64,
        /// Why.
        reason: String,
    },
    /// It was counted, in thousandths of a unit.
    Counted {
        /// How much was found.
        counted_milli: i64,
    },
}

/// Builds a stock movement or count.
///
/// # Errors
/// [`PlanError`], naming the field; [`PlanError::UnknownSku`] for a product that is neither in
/// the catalogue nor in stock.
pub async fn adjustment(shop: &ShopHandle, new: NewAdjustment) -> Result<Planned, PlanError> {
    let sku = new.sku.clone();
    let known = shop.ask(move |shop| product_is_listed(shop, &sku) || shop.books().stock(&sku).is_some()).await?;
    if !known && !new.sku.is_empty() {
        return Err(PlanError::UnknownSku { field: "sku".to_owned(), sku: new.sku });
    }
    match new.adjusted {
        Adjusted::Moved { quantity_milli, reason } => Planned::fact(Fact::StockMovement(StockMovement {
            source: new.source,
            occurred: new.occurred,
            sku: new.sku,
            quantity_milli,
            reason,
        })),
        Adjusted::Counted { counted_milli } => count(shop, new.source, new.sku, counted_milli).await,
    }
}

async fn count(
    shop: &ShopHandle,
    source: Option<Source>,
    sku: String,
    counted_milli: i64,
) -> Result<Planned, PlanError> {
    // What the till had seen differs at every request, so a repeated one takes the first's.
    if let Some(source) = &source
        && let Some(Fact::StockCount(before)) = counted_fact(shop, named_record(shop, source).await?).await?
        && before.sku == sku
        && before.counted_milli == counted_milli
    {
        return Planned::fact(Fact::StockCount(before));
    }
    let product = sku.clone();
    let (expected, seen) = shop
        .ask(move |shop| (shop.books().stock(&product).map_or(Some(0), |level| level.on_hand_milli), shop.seen()))
        .await?;
    Planned::fact(Fact::StockCount(StockCount {
        source,
        sku,
        counted_milli,
        expected_milli: expected.unwrap_or_default(),
        seen,
    }))
}
