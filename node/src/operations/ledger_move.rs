//! Giving what one ledger was asked for to another: what an owner has to say, and what stands
//! against it.

use crdt_model::document::{DocumentId, FieldEdit, FieldValue};
use crdt_model::ids::{DeviceId, RecordId};
use crdt_model::record::{Fact, Ledger, LedgerMoved, PaymentFact, Role};
use crdt_model::shop::{PAYING_RELAY, Shop};

use super::{PlanError, Planned, State};
use crate::shop_handle::ShopHandle;

/// What is to go to another ledger.
#[derive(Debug, Clone)]
pub struct NewMove {
    /// Whose intents; the settings' paying relay, or the intent's own ledger, if `None`.
    pub from: Option<Ledger>,
    /// The relay that is to have them: its device id, or a name that it alone has.
    pub to: String,
    /// Its epoch; the latest that has arrived here if `None`.
    pub to_epoch: Option<u64>,
    /// Only this payment.
    pub intent: Option<RecordId>,
    /// The old relay is lost for good, and asks nobody any more.
    pub old_is_gone: bool,
}

/// An owner's words before they are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveWords {
    /// Whose intents.
    pub from: Ledger,
    /// Whose they become.
    pub to: Ledger,
    /// Only this one.
    pub intent: Option<RecordId>,
    /// The old relay is lost for good.
    pub old_is_gone: bool,
}

/// Finds out what an owner has to sign.
///
/// # Errors
/// [`PlanError`], naming the field; [`State::LedgerMoved`] if these intents go elsewhere already.
pub async fn plan_move(shop: &ShopHandle, new: NewMove) -> Result<MoveWords, PlanError> {
    shop.ask(move |shop| words(shop, &new)).await?
}

fn words(shop: &Shop, new: &NewMove) -> Result<MoveWords, PlanError> {
    let from = match (new.from, new.intent) {
        (Some(from), _) => from,
        (None, Some(intent)) => {
            let payment = shop.books().payment(intent);
            let payment = payment.ok_or_else(|| PlanError::NotFound { what: "payment", id: intent.to_string() })?;
            payment.ledger.ok_or_else(|| PlanError::field("payment_id", "has no ledger yet: nobody asks for it"))?
        }
        (None, None) => shop
            .settings()
            .paying_ledger
            .ok_or_else(|| PlanError::field("from", "is missing, and the settings name no paying relay"))?,
    };
    let relay = relay_named(shop, &new.to)?;
    let epoch = new.to_epoch.or_else(|| latest_epoch(shop, relay)).ok_or_else(|| {
        PlanError::field("to", "has recorded nothing that arrived here yet: connect to it first, or give its epoch")
    })?;
    let to = Ledger { relay, epoch };
    if from == to {
        return Err(PlanError::field("to", "is the ledger that has these payments already"));
    }
    for (_, _, before, _) in shop.books().ledger_moves() {
        let same = before.from == from && before.intent == new.intent;
        if same && before.to != to {
            let (relay, epoch) = (before.to.relay, before.to.epoch);
            let reason = format!("these payments go to relay {relay}, epoch {epoch}, already: move them on from there");
            return Err(PlanError::State { state: State::LedgerMoved, reason });
        }
        if before.from == to && before.intent.is_none() {
            let reason =
                format!("relay {relay} has let go of its payments in epoch {epoch}, for good: move to another");
            return Err(PlanError::State { state: State::LedgerMoved, reason });
        }
    }
    Ok(MoveWords { from, to, intent: new.intent, old_is_gone: new.old_is_gone })
}

/// Records an owner's signed words. If the old ledger is the one that the settings name, they name
/// the new one from then on.
///
/// # Errors
/// [`PlanError`].
pub async fn record_move(shop: &ShopHandle, moved: LedgerMoved) -> Result<Planned, PlanError> {
    let (from, to, whole) = (moved.from, moved.to, moved.intent.is_none());
    let named = shop.ask(move |shop| shop.settings().paying_ledger == Some(from)).await?;
    let mut planned = Planned::fact(Fact::Payment(PaymentFact::Moved(moved)))?;
    if named && whole {
        let edit = FieldEdit {
            record: DocumentId::settings_record(),
            field: PAYING_RELAY.to_owned(),
            value: Some(FieldValue::Text(format!("{}:{}", to.relay, to.epoch))),
        };
        planned.operation.edits.push((DocumentId::Settings, edit));
    }
    Ok(planned)
}

fn relay_named(shop: &Shop, wanted: &str) -> Result<DeviceId, PlanError> {
    let relays = || shop.members().filter(|member| member.role == Role::Relay);
    if let Ok(device) = wanted.parse::<DeviceId>() {
        let known = relays().any(|member| member.device == device);
        return if known { Ok(device) } else { Err(PlanError::field("to", "is no relay of this business")) };
    }
    let named: Vec<DeviceId> = relays().filter(|member| member.name == wanted).map(|member| member.device).collect();
    match named.as_slice() {
        [device] => Ok(*device),
        [] => Err(PlanError::field("to", format!("names no relay: there is none that is called {wanted}"))),
        _ => Err(PlanError::field("to", "is the name of several relays: give the device id")),
    }
}

fn latest_epoch(shop: &Shop, relay: DeviceId) -> Option<u64> {
    let journals = shop.journals().map(|journal| &journal.info.genesis);
    journals.filter(|genesis| genesis.device == relay).map(|genesis| genesis.epoch).max()
}
