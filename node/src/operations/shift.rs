//! Shifts: a till's drawer from float to count.

use crdt_model::ids::RecordId;
use crdt_model::money::{Currency, Money};
use crdt_model::record::{Fact, ShiftClosed, ShiftOpened, Source};

use super::money_moved::own_currency;
use super::{PlanError, Planned, State, counted_fact, named_record};
use crate::shop_handle::ShopHandle;

/// A shift to begin.
#[derive(Debug, Clone)]
pub struct NewShift {
    /// The client's own id.
    pub source: Option<Source>,
    /// What is in the drawer, in minor units.
    pub float_minor: i64,
    /// The business's own if `None`.
    pub currency: Option<Currency>,
}

/// Begins a shift on this till.
///
/// # Errors
/// [`PlanError`]; [`State::ShiftOpen`] while another one is open.
pub async fn open_shift(shop: &ShopHandle, new: NewShift) -> Result<Planned, PlanError> {
    let currency = own_currency(shop, new.currency).await?;
    let again = match &new.source {
        Some(source) => Some(named_record(shop, source).await?),
        None => None,
    };
    let (current, known) = shop
        .ask(move |shop| {
            let known = again.is_some_and(|record| shop.books().record(record).is_some());
            (shop.books().current_shift(shop.device()), known)
        })
        .await?;
    if let (Some(current), false) = (current, known) {
        let reason = format!("shift {current} is open on this till: close it first");
        return Err(PlanError::State { state: State::ShiftOpen, reason });
    }
    let opening_float = Money::new(new.float_minor, currency);
    Planned::fact(Fact::ShiftOpened(ShiftOpened { source: new.source, opening_float }))
}

/// Ends a shift with the drawer counted. Asked again with the same count, it is the same end.
///
/// # Errors
/// [`PlanError`]; [`State::ShiftClosed`] if it was closed with another count.
pub async fn close_shift(
    shop: &ShopHandle,
    shift: RecordId,
    counted_minor: i64,
    note: Option<String>,
) -> Result<Planned, PlanError> {
    if let Some(Fact::ShiftClosed(before)) = counted_fact(shop, shift.derived("closed", 0)).await? {
        if before.counted.minor == counted_minor && before.note == note {
            return Planned::fact(Fact::ShiftClosed(before));
        }
        let reason = format!("shift {shift} was closed before: open a new one");
        return Err(PlanError::State { state: State::ShiftClosed, reason });
    }
    let (report, seen) = shop.ask(move |shop| (shop.books().z_report(shift), shop.seen())).await?;
    let Some(report) = report else {
        return Err(PlanError::NotFound { what: "shift", id: shift.to_string() });
    };
    let expected_minor = i64::try_from(report.cash_expected_minor).map_err(|_| {
        PlanError::field("counted_minor", "can't be compared: the drawer's expected cash is beyond 64 bits")
    })?;
    Planned::fact(Fact::ShiftClosed(ShiftClosed {
        shift,
        counted: Money::new(counted_minor, report.opening_float.currency),
        expected_minor,
        seen,
        note,
    }))
}
