//! Handing a shift over to another till, and taking one.

use crdt_model::books::HandoffPhase;
use crdt_model::document::{DocumentId, FieldValue, TICKETS_SHARDS};
use crdt_model::ids::{DeviceId, RecordId};
use crdt_model::money::Money;
use crdt_model::record::{
    Fact, HANDOFF_TICKETS_MAX, HandoffAccepted, HandoffDecided, HandoffOffered, HandoffWithdrawn, Role, Source,
};
use crdt_model::shop::{HandoffError, Shop};

use super::ticket::STATUS;
use super::{PlanError, Planned, counted_fact, named_record};
use crate::shop_handle::ShopHandle;

/// A shift to hand over.
#[derive(Debug, Clone)]
pub struct NewHandoff {
    /// The client's own id.
    pub source: Option<Source>,
    /// The shift; the one that is open on this till if `None`.
    pub shift: Option<RecordId>,
    /// The till that is to have it: its device id, or a name that it alone has.
    pub to: String,
    /// What was counted in the drawer, in minor units.
    pub counted_minor: i64,
    /// The open tickets that go along; all of this till's if `None`.
    pub tickets: Option<Vec<RecordId>>,
    /// A note.
    pub note: Option<String>,
}

/// Offers a shift to another till.
///
/// # Errors
/// [`PlanError`], naming the field.
pub async fn offer_handoff(shop: &ShopHandle, new: NewHandoff) -> Result<Planned, PlanError> {
    if let Some(source) = &new.source
        && let Some(Fact::HandoffOffered(before)) = counted_fact(shop, named_record(shop, source).await?).await?
        && before.counted.minor == new.counted_minor
        && new.shift.is_none_or(|shift| shift == before.shift)
    {
        let wanted = new.to.clone();
        let same =
            shop.ask(move |shop| till_named(shop, &wanted).is_ok_and(|till| till == before.to).then_some(before));
        return same.await?.map_or(Err(PlanError::IdReused), |before| Planned::fact(Fact::HandoffOffered(before)));
    }
    let offered = shop.ask(move |shop| offered(shop, new)).await??;
    Planned::fact(Fact::HandoffOffered(offered))
}

fn offered(shop: &Shop, new: NewHandoff) -> Result<HandoffOffered, PlanError> {
    let device = shop.device();
    let to = till_named(shop, &new.to)?;
    let shift = match new.shift.or_else(|| shop.books().current_shift(device)) {
        Some(shift) => shift,
        None => match shop.books().frozen_shift(device) {
            Some(frozen) => {
                return Err(HandoffError::ShiftFrozen { shift: frozen.offer.shift, handoff: frozen.id }.into());
            }
            None => {
                return Err(PlanError::field("shift_id", "is missing, and no shift is open on this till: open one"));
            }
        },
    };
    let report = shop.books().z_report(shift);
    let report = report.ok_or_else(|| PlanError::NotFound { what: "shift", id: shift.to_string() })?;
    let expected_minor = i64::try_from(report.cash_expected_minor).map_err(|_| {
        PlanError::field("counted_minor", "can't be compared: the drawer's expected cash is beyond 64 bits")
    })?;
    let tickets = new.tickets.unwrap_or_else(|| own_tickets(shop));
    if tickets.len() > HANDOFF_TICKETS_MAX {
        let reason = format!("are {}, but {HANDOFF_TICKETS_MAX} go along at most: close some first", tickets.len());
        return Err(PlanError::field("tickets", reason));
    }
    Ok(HandoffOffered {
        source: new.source,
        shift,
        previous: shop.books().shift_came_by(shift),
        to,
        counted: Money::new(new.counted_minor, report.opening_float.currency),
        expected_minor,
        tickets,
        seen: shop.seen().into_iter().filter(|(journal, seq)| shop.relay_holds(*journal) < *seq).collect(),
        arbiter: shop.certificate().owner,
        note: new.note,
    })
}

/// Takes a shift that was offered to this till. Without a count of its own, the receiver agrees
/// with the giver's. Asked again, it is the same acceptance.
///
/// # Errors
/// [`PlanError`].
pub async fn accept_handoff(shop: &ShopHandle, id: RecordId, counted_minor: Option<i64>) -> Result<Planned, PlanError> {
    let (handoff, device) = shop.ask(move |shop| (shop.books().handoff(id), shop.device())).await?;
    let handoff = handoff.ok_or_else(|| PlanError::NotFound { what: "handoff", id: id.to_string() })?;
    let counted = handoff.counted();
    let minor = counted_minor.unwrap_or(counted.minor);
    if handoff.accepted.is_some() && handoff.offer.to == device && minor == counted.minor {
        return Ok(Planned { record: Some(id), repeated: true, ..Planned::default() });
    }
    let counted = Money::new(minor, counted.currency);
    about(id, Fact::HandoffAccepted(HandoffAccepted { handoff: id, counted }))
}

/// By the receiver, declines; by the giver, goes on with the shift, where that is safe.
///
/// # Errors
/// [`PlanError`].
pub async fn withdraw_handoff(shop: &ShopHandle, id: RecordId, reason: Option<String>) -> Result<Planned, PlanError> {
    let (handoff, device) = shop.ask(move |shop| (shop.books().handoff(id), shop.device())).await?;
    let handoff = handoff.ok_or_else(|| PlanError::NotFound { what: "handoff", id: id.to_string() })?;
    let said = (handoff.giver == device && handoff.phase == HandoffPhase::Withdrawn)
        || (handoff.offer.to == device && handoff.declined.is_some());
    if said {
        return Ok(Planned { record: Some(id), repeated: true, ..Planned::default() });
    }
    about(id, Fact::HandoffWithdrawn(HandoffWithdrawn { handoff: id, reason }))
}

/// Records an owner's signed decision.
///
/// # Errors
/// [`PlanError`].
pub fn decide_handoff(decided: HandoffDecided) -> Result<Planned, PlanError> {
    about(decided.handoff, Fact::HandoffDecided(decided))
}

fn about(handoff: RecordId, fact: Fact) -> Result<Planned, PlanError> {
    Ok(Planned { record: Some(handoff), ..Planned::fact(fact)? })
}

/// The till with a device id, or the only one with a name.
fn till_named(shop: &Shop, text: &str) -> Result<DeviceId, PlanError> {
    if let Ok(device) = text.parse() {
        return Ok(device);
    }
    let own = shop.device();
    let named = |device: DeviceId| device != own;
    let mut fitting = shop.members().filter(|member| member.name == text && member.role == Role::Till);
    let mut fitting = fitting.by_ref().filter(|member| named(member.device));
    match (fitting.next(), fitting.next()) {
        (Some(member), None) => Ok(member.device),
        (None, _) => Err(PlanError::field("to", "names no other till: take its device id or name from the peers")),
        (Some(_), Some(_)) => Err(PlanError::field("to", "names several tills: take the device id from the peers")),
    }
}

/// The open tickets that were opened on this till, or handed to it, and not handed on.
fn own_tickets(shop: &Shop) -> Vec<RecordId> {
    let mut found = Vec::new();
    for shard in 0..TICKETS_SHARDS {
        let Some(document) = shop.document(DocumentId::Tickets(shard)) else { continue };
        for ticket in document.records() {
            let open = |value: &FieldValue| matches!(value, FieldValue::Text(text) if text == "open");
            let opened_by = document.values(ticket, STATUS).into_iter().find(|valued| open(&valued.value));
            let opener = opened_by.and_then(|valued| shop.journal(valued.by)).map(|journal| journal.info.device());
            let holder = opener.map(|opener| shop.books().ticket_holder(ticket).unwrap_or(opener));
            if holder == Some(shop.device()) {
                found.push(ticket);
            }
        }
    }
    found
}
