//! Limits on what is promised and not settled yet: M-PESA can't authorise offline, so each
//! promise may come to nothing. Enforced where a promise is made, and looked at again where it
//! would be kept.

use crdt_model::books::IntentState;
use crdt_model::ids::{DeviceId, RecordId};
use crdt_model::record::{Fact, Kind};
use crdt_model::shop::{Operation, PromiseLimits, Shop};
use crdt_model::time::{Day, Timestamp};

use super::{PlanError, State};
use crate::shop_handle::{ReadError, ShopHandle};

/// Open promises that are looked at; a shop with more has other troubles.
const OPEN_MAX: usize = 2_000;

/// Money that somebody promised to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) device: DeviceId,
    pub(crate) amount_minor: i64,
    /// The customer's number, as the provider takes it.
    pub(crate) phone: Option<String>,
    pub(crate) day: Day,
}

/// Which limit one more promise would break, given those that are open already.
pub(crate) fn broken(limits: &PromiseLimits, new: &Promise, open: &[Promise]) -> Option<&'static str> {
    let sum = |counts: &dyn Fn(&Promise) -> bool| {
        let others = open.iter().filter(|other| counts(other)).map(|other| other.amount_minor);
        others.fold(new.amount_minor, i64::saturating_add)
    };
    let device = sum(&|other| other.device == new.device);
    let day = sum(&|other| other.device == new.device && other.day == new.day);
    let phone = sum(&|other| other.phone.is_some() && other.phone == new.phone);
    let over = |limit: Option<i64>, sum: i64| limit.is_some_and(|limit| sum > limit);
    [
        (over(limits.amount_minor, new.amount_minor), "promise_amount_max_minor"),
        (over(limits.device_minor, device), "promise_device_max_minor"),
        (over(limits.day_minor, day), "promise_day_max_minor"),
        (over(limits.phone_minor, phone), "promise_phone_max_minor"),
    ]
    .into_iter()
    .find_map(|(broken, name)| broken.then_some(name))
}

/// Refuses an operation whose promises break a limit.
///
/// # Errors
/// [`PlanError`]; [`State::PromiseLimit`], naming the setting.
pub async fn check_promises(shop: &ShopHandle, operation: &Operation) -> Result<(), PlanError> {
    if operation.phones.is_empty() {
        return Ok(());
    }
    let promised: Vec<(i64, String)> = operation
        .phones
        .iter()
        .filter_map(|phone| {
            let tender = usize::try_from(phone.tender).ok()?;
            let fact = operation.facts.get(phone.fact)?;
            if let Fact::Sale(sale) = fact {
                return Some((sale.tenders.get(tender)?.amount_minor, phone.number.clone()));
            }
            let Fact::Intent(intent) = fact else { return None };
            Some((intent.amount.minor, phone.number.clone()))
        })
        .collect();
    let now = crate::clock::now();
    let (limits, device, day) = shop
        .ask(move |shop| {
            let day = Day::of(now, shop.genesis().utc_offset_minutes);
            (shop.settings().promises, shop.device(), day)
        })
        .await?;
    if limits == PromiseLimits::default() {
        return Ok(());
    }
    let mut open = open_promises(shop, Some(device), None).await?;
    for (amount_minor, number) in promised {
        let promise = Promise { device, amount_minor, phone: Some(number), day };
        if let Some(setting) = broken(&limits, &promise, &open) {
            let reason = format!(
                "too much would be promised and not settled ({setting}): wait for the relay, or take another tender"
            );
            return Err(PlanError::State { state: State::PromiseLimit, reason });
        }
        open.push(promise);
    }
    Ok(())
}

/// Open promises, of one device or all, made before `before`.
pub(crate) async fn open_promises(
    shop: &ShopHandle,
    device: Option<DeviceId>,
    before: Option<RecordId>,
) -> Result<Vec<Promise>, PlanError> {
    let found = shop.ask(move |shop| {
        let offset = shop.genesis().utc_offset_minutes;
        let until =
            before.and_then(|intent| shop.books().payment(intent)).map(|payment| (payment.time, payment.intent));
        let open = shop.books().list(Kind::Intent, until).filter_map(move |intent| {
            let payment = shop.books().payment(intent.id)?;
            let counts = payment.state == IntentState::Open && device.is_none_or(|device| payment.device == device);
            counts.then_some((payment, offset))
        });
        open.take(OPEN_MAX).collect::<Vec<_>>()
    });
    let business = shop.ask(Shop::business).await?;
    let mut promises = Vec::new();
    for (payment, offset) in found.await? {
        let entry = shop.entry(payment.place)?;
        let body = entry.map(|entry| entry.body()).transpose().map_err(ReadError::from)?;
        let phone = body.and_then(|body| {
            let index = (0..body.facts.len())
                .find(|index| body.record_id(business, payment.place, *index) == Some(payment.intent))?;
            let index = u32::try_from(index).ok()?;
            body.personal.iter().find(|personal| personal.fact == index)?.phone.clone()
        });
        let day = Day::of(Timestamp(payment.time.wall().0), offset);
        promises.push(Promise { device: payment.device, amount_minor: payment.amount.minor, phone, day });
    }
    Ok(promises)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promise(device: u8, amount_minor: i64, phone: &str, day: i32) -> Promise {
        Promise { device: DeviceId([device; 32]), amount_minor, phone: Some(phone.to_owned()), day: Day(day) }
    }

    #[test]
    fn each_limit_counts_its_own_promises() {
        let open = [promise(1, 100, "a", 1), promise(1, 100, "b", 2), promise(2, 100, "a", 2)];
        let limits = |amount: i64, device: i64, phone: i64, day: i64| PromiseLimits {
            amount_minor: Some(amount),
            device_minor: Some(device),
            phone_minor: Some(phone),
            day_minor: Some(day),
        };
        let new = promise(1, 100, "a", 2);
        assert_eq!(broken(&limits(100, 300, 300, 200), &new, &open), None);
        assert_eq!(broken(&limits(99, 300, 300, 200), &new, &open), Some("promise_amount_max_minor"));
        assert_eq!(broken(&limits(100, 299, 300, 200), &new, &open), Some("promise_device_max_minor"));
        assert_eq!(broken(&limits(100, 300, 299, 200), &new, &open), Some("promise_phone_max_minor"));
        assert_eq!(broken(&limits(100, 300, 300, 199), &new, &open), Some("promise_day_max_minor"));
        assert_eq!(broken(&PromiseLimits::default(), &new, &open), None);
    }
}
