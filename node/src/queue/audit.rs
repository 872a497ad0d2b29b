//! Whether the chain of calls is what it was: link by link, and against the anchors that it left in
//! this device's journal, which others hold and have signed for.

use crdt_model::entry::Place;
use crdt_model::ids::{DeviceId, RecordId};
use crdt_model::record::{AttemptAnchor, Fact, Kind, UpstreamFact};
use crdt_model::time::Hlc;

use super::DeskError;
use super::attempts::links_after;
use crate::shop_handle::{ReadError, ShopHandle};

/// What can be said of the chain of calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audited {
    /// How many calls it holds.
    pub calls: u64,
    /// The first call that is not what it was, or is missing.
    pub broken_at: Option<u64>,
    /// Up to where the newest anchor reaches, wherever it is held.
    pub anchored_through: u64,
    /// Up to where the newest anchor reaches that another device has signed for: what lies below
    /// is proven.
    pub proven_through: u64,
    /// Who has signed for that anchor.
    pub held_by: Vec<DeviceId>,
}

/// The most facts of this device that are looked through for anchors.
const LOOKS_MAX: usize = 200_000;
const PAGE: usize = 256;

/// Checks the chain of calls.
///
/// # Errors
/// [`DeskError`].
pub async fn audit(shop: &ShopHandle) -> Result<Audited, DeskError> {
    let anchors = anchors(shop, usize::MAX).await?;
    let mut audited = Audited::default();
    let (mut previous, mut after) = ([0; 32], 0);
    loop {
        let links = links_after(shop.reader().as_ref(), after, PAGE)?;
        if links.is_empty() {
            break;
        }
        for (number, linked) in links {
            let expected = after + 1;
            after = expected;
            let Some(linked) = linked.filter(|linked| number == expected && linked.previous == previous) else {
                audited.broken_at = Some(expected);
                return Ok(audited);
            };
            previous = linked.hash();
            audited.calls = expected;
            let differs =
                |(_, _, anchor): &&(Place, Hlc, AttemptAnchor)| anchor.through == expected && anchor.head != previous;
            if anchors.iter().find(differs).is_some() {
                audited.broken_at = Some(expected);
                return Ok(audited);
            }
        }
    }
    audited.anchored_through = anchors.iter().map(|(.., anchor)| anchor.through).max().unwrap_or_default();
    if audited.anchored_through > audited.calls {
        // Its end was cut off.
        audited.broken_at = Some(audited.calls + 1);
        return Ok(audited);
    }
    let held = shop.ask(|shop| (shop.device(), shop.safe_to_wipe(crate::clock::now(), false).verdict.journals)).await?;
    let (own, journals) = held;
    for (place, _, anchor) in anchors {
        let holders = journals.iter().filter(|held| held.journal == place.journal).flat_map(|held| &held.holders);
        let by: Vec<DeviceId> = holders
            .filter(|holder| holder.device != own && holder.high >= place.seq)
            .map(|holder| holder.device)
            .collect();
        if !by.is_empty() && anchor.through > audited.proven_through {
            audited.proven_through = anchor.through;
            audited.held_by = by;
        }
    }
    Ok(audited)
}

/// This device's anchors, the newest first, at most so many.
pub(crate) async fn anchors(
    shop: &ShopHandle,
    count_max: usize,
) -> Result<Vec<(Place, Hlc, AttemptAnchor)>, DeskError> {
    let mut found = Vec::new();
    let mut before: Option<(Hlc, RecordId)> = None;
    let mut looks = 0;
    while found.len() < count_max && looks < LOOKS_MAX {
        let page: Vec<_> = shop
            .ask(move |shop| {
                let own = shop.device();
                let listed = shop.books().list(Kind::Upstream, before).take(PAGE);
                listed.map(|at| (at.time, at.id, at.place, at.index, at.device == own)).collect()
            })
            .await?;
        let Some((time, id, ..)) = page.last() else { break };
        before = Some((*time, *id));
        looks += page.len();
        for (time, _, place, index, own) in page {
            if !own {
                continue;
            }
            let Some(entry) = shop.entry(place)? else { continue };
            let body = entry.body().map_err(ReadError::from)?;
            let fact = usize::try_from(index).ok().and_then(|index| body.facts.into_iter().nth(index));
            if let Some(Fact::Upstream(UpstreamFact::Anchor(anchor))) = fact {
                found.push((place, time, anchor));
            }
        }
    }
    found.truncate(count_max);
    Ok(found)
}
