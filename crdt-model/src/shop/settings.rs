//! The business's settings, as the settings document has them.

use super::Shop;
use crate::document::{DocumentId, FieldEdit, FieldValue, field_key};
use crate::record::Ledger;
use crate::rules::ConflictState;

/// Which relay asks customers for M-PESA payments: `<device id>:<epoch>`.
pub const PAYING_RELAY: &str = "paying_relay";
/// The M-PESA shortcode that the paying relay collects for.
pub const PAYING_SHORTCODE: &str = "paying_shortcode";
/// Providers that the paying relay has beside M-PESA, as it says itself: names and commas.
pub const PAYMENT_PROVIDERS: &str = "payment_providers";
/// Refuse sales of products that are not in the catalogue (`true`), or warn (`false`).
pub const REQUIRE_KNOWN_SKU: &str = "require_known_sku";

/// The most that one promise may be, in minor units.
pub const PROMISE_AMOUNT_MAX: &str = "promise_amount_max_minor";
/// The most that one device may have promised and not settled.
pub const PROMISE_DEVICE_MAX: &str = "promise_device_max_minor";
/// The most that may be promised of one customer's phone and not settled.
pub const PROMISE_PHONE_MAX: &str = "promise_phone_max_minor";
/// The most that one device may have promised in a day and not settled.
pub const PROMISE_DAY_MAX: &str = "promise_day_max_minor";

/// Limits on what is promised and not settled yet, in minor units; none where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PromiseLimits {
    /// One promise.
    pub amount_minor: Option<i64>,
    /// All open ones of a device.
    pub device_minor: Option<i64>,
    /// All open ones of a customer's phone.
    pub phone_minor: Option<i64>,
    /// All open ones of a device from one day.
    pub day_minor: Option<i64>,
}

/// The settings that the shop itself acts on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Who pushes intents; `None` while nobody is named, or two are at once.
    pub paying_ledger: Option<Ledger>,
    /// The shortcode that it collects for.
    pub paying_shortcode: Option<String>,
    /// What it can ask beside M-PESA.
    pub payment_providers: Vec<String>,
    /// Refuse sales of unknown products.
    pub require_known_sku: bool,
    /// Limits on what is promised and not settled.
    pub promises: PromiseLimits,
}

impl Settings {
    /// The edits that name the paying relay, and the shortcode that it collects for.
    #[must_use]
    pub fn name_paying_relay(ledger: Ledger, shortcode: Option<&str>) -> Vec<(DocumentId, FieldEdit)> {
        let mut edits = vec![text_edit(PAYING_RELAY, format!("{}:{}", ledger.relay, ledger.epoch))];
        edits.extend(shortcode.map(|shortcode| text_edit(PAYING_SHORTCODE, shortcode.to_owned())));
        edits
    }

    /// The edit that names what the paying relay can ask beside M-PESA.
    #[must_use]
    pub fn name_providers(names: &[String]) -> Vec<(DocumentId, FieldEdit)> {
        vec![text_edit(PAYMENT_PROVIDERS, names.join(","))]
    }
}

fn text_edit(field: &str, value: String) -> (DocumentId, FieldEdit) {
    let (record, field) = (DocumentId::settings_record(), field.to_owned());
    (DocumentId::Settings, FieldEdit { record, field, value: Some(FieldValue::Text(value)) })
}

impl Shop {
    /// The settings that the shop itself acts on.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let Some(document) = self.document(DocumentId::Settings) else { return Settings::default() };
        let text = |field: &str| match document.field(DocumentId::settings_record(), field) {
            Some(FieldValue::Text(text)) => Some(text),
            Some(FieldValue::Int(_) | FieldValue::Bool(_)) | None => None,
        };
        let number = |field: &str| match document.field(DocumentId::settings_record(), field) {
            Some(FieldValue::Int(number)) => Some(number),
            Some(FieldValue::Text(_) | FieldValue::Bool(_)) | None => None,
        };
        // Two relays named at once: nobody pushes until a person decides.
        let settled = !document.conflicted(&field_key(DocumentId::settings_record(), PAYING_RELAY));
        Settings {
            paying_ledger: text(PAYING_RELAY).filter(|_| settled).and_then(|text| parse_ledger(&text)),
            paying_shortcode: text(PAYING_SHORTCODE),
            payment_providers: text(PAYMENT_PROVIDERS)
                .map(|names| names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
                .unwrap_or_default(),
            require_known_sku: document.field(DocumentId::settings_record(), REQUIRE_KNOWN_SKU)
                == Some(FieldValue::Bool(true)),
            promises: PromiseLimits {
                amount_minor: number(PROMISE_AMOUNT_MAX),
                device_minor: number(PROMISE_DEVICE_MAX),
                phone_minor: number(PROMISE_PHONE_MAX),
                day_minor: number(PROMISE_DAY_MAX),
            },
        }
    }

    /// Conflicts that wait for a person: between facts, between edits of one field, and forked
    /// journals.
    #[must_use]
    pub fn conflict_count(&self) -> u64 {
        let forks = self.fork_conflicts().iter().filter(|fork| fork.state == ConflictState::Open).count();
        self.books.open_conflict_count() + self.field_conflicts.len() as u64 + forks as u64
    }
}

fn parse_ledger(text: &str) -> Option<Ledger> {
    let (relay, epoch) = text.split_once(':')?;
    Some(Ledger { relay: relay.parse().ok()?, epoch: epoch.parse().ok()? })
}
