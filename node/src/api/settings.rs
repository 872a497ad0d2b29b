//! The business's settings, which every device shares.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use crdt_model::document::{DocumentId, FieldEdit, FieldValue};
use crdt_model::ids::DeviceId;
use crdt_model::record::Ledger;
use crdt_model::shop::{
    Operation, PAYING_RELAY, PAYING_SHORTCODE, PROMISE_AMOUNT_MAX, PROMISE_DAY_MAX, PROMISE_DEVICE_MAX,
    PROMISE_PHONE_MAX, REQUIRE_KNOWN_SKU,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

use super::answer::{Answer, Changes, record};
use super::body::Body;
use super::caller::{Caller, named};
use super::problem::{Code, Problem, body_id};
use super::state::ApiState;
use super::values::{conflicts_json, edit};
use crate::operations::{Edit, Planned, SharedRecord};

/// Settings to change: absent keeps, `null` takes away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SettingsPatch {
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// The relay that asks customers for M-PESA payments.
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<LedgerBody>)]
    paying_relay: Edit<LedgerBody>,
    /// The M-PESA shortcode that it collects for.
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<String>)]
    paying_shortcode: Edit<String>,
    /// Refuse sales of products that are not in the catalogue.
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<bool>)]
    require_known_sku: Edit<bool>,
    /// The most that one promise may be, in minor units.
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<i64>)]
    promise_amount_max_minor: Edit<i64>,
    /// The most that one device may have promised and not settled.
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<i64>)]
    promise_device_max_minor: Edit<i64>,
    /// The most that may be promised of one customer's phone and not settled.
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<i64>)]
    promise_phone_max_minor: Edit<i64>,
    /// The most that one device may have promised in a day and not settled.
    #[serde(default, deserialize_with = "edit")]
    #[schema(value_type = Option<i64>)]
    promise_day_max_minor: Edit<i64>,
}

named!(SettingsPatch);

/// A relay, in one of its epochs.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LedgerBody {
    /// The relay's device id.
    pub(super) device: String,
    /// Its epoch.
    pub(super) epoch: u64,
}

impl LedgerBody {
    pub(super) fn of(ledger: Ledger) -> Self {
        Self { device: ledger.relay.to_string(), epoch: ledger.epoch }
    }
}

/// The settings.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SettingsView {
    /// `null` while nobody is named, or two are at once.
    paying_relay: Option<LedgerBody>,
    paying_shortcode: Option<String>,
    /// Providers that the paying relay has beside `mpesa`, as it says itself.
    payment_providers: Vec<String>,
    require_known_sku: bool,
    promise_amount_max_minor: Option<i64>,
    promise_device_max_minor: Option<i64>,
    promise_phone_max_minor: Option<i64>,
    promise_day_max_minor: Option<i64>,
    /// Settings with different values at the same time.
    conflicts: BTreeMap<String, Vec<serde_json::Value>>,
}

/// The business's settings.
#[utoipa::path(get, path = "/api/settings", tag = "settings", responses((status = 200, body = SettingsView)))]
pub(super) async fn settings(State(state): State<ApiState>) -> Result<Json<SettingsView>, Problem> {
    let view = state.shop.ask(|shop| {
        let settings = shop.settings();
        let record = SharedRecord::read(shop, DocumentId::Settings, DocumentId::settings_record());
        SettingsView {
            paying_relay: settings.paying_ledger.map(LedgerBody::of),
            payment_providers: settings.payment_providers,
            paying_shortcode: settings.paying_shortcode,
            require_known_sku: settings.require_known_sku,
            promise_amount_max_minor: settings.promises.amount_minor,
            promise_device_max_minor: settings.promises.device_minor,
            promise_phone_max_minor: settings.promises.phone_minor,
            promise_day_max_minor: settings.promises.day_minor,
            conflicts: conflicts_json(&record),
        }
    });
    Ok(Json(view.await?))
}

/// Changes settings.
#[utoipa::path(patch, path = "/api/settings", tag = "settings", request_body = SettingsPatch, responses(Changes))]
pub(super) async fn correct(
    State(state): State<ApiState>,
    caller: Caller,
    Body(body): Body<SettingsPatch>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let relay = match body.paying_relay {
        Edit::Keep => Edit::Keep,
        Edit::Clear => Edit::Clear,
        Edit::Set(ledger) => {
            let relay: DeviceId = body_id("paying_relay.device", &ledger.device)?;
            Edit::Set(ledger_text(Ledger { relay, epoch: ledger.epoch }))
        }
    };
    let digits = |code: &String| (1..=10).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_digit());
    if matches!(&body.paying_shortcode, Edit::Set(code) if !digits(code)) {
        let detail = "paying_shortcode must be 1 to 10 digits";
        return Err(Problem::at(Code::InvalidField, "paying_shortcode", detail));
    }
    let limits = [
        (PROMISE_AMOUNT_MAX, &body.promise_amount_max_minor),
        (PROMISE_DEVICE_MAX, &body.promise_device_max_minor),
        (PROMISE_PHONE_MAX, &body.promise_phone_max_minor),
        (PROMISE_DAY_MAX, &body.promise_day_max_minor),
    ];
    for (name, limit) in limits {
        if matches!(limit, Edit::Set(..0)) {
            return Err(Problem::at(Code::InvalidField, name, format!("{name} must not be negative")));
        }
    }
    let edits = [
        field(PAYING_RELAY, relay, FieldValue::Text),
        field(PAYING_SHORTCODE, body.paying_shortcode, FieldValue::Text),
        field(REQUIRE_KNOWN_SKU, body.require_known_sku, FieldValue::Bool),
        field(PROMISE_AMOUNT_MAX, body.promise_amount_max_minor, FieldValue::Int),
        field(PROMISE_DEVICE_MAX, body.promise_device_max_minor, FieldValue::Int),
        field(PROMISE_PHONE_MAX, body.promise_phone_max_minor, FieldValue::Int),
        field(PROMISE_DAY_MAX, body.promise_day_max_minor, FieldValue::Int),
    ];
    let edits = edits.into_iter().flatten().map(|edit| (DocumentId::Settings, edit)).collect();
    let operation = Operation { edits, ..Operation::default() };
    let planned = Planned { operation, record: Some(DocumentId::settings_record()), ..Planned::default() };
    record(&state, &caller, source.as_ref(), planned, Answer::Changed).await
}

/// As the core reads it back.
fn ledger_text(ledger: Ledger) -> String {
    format!("{}:{}", ledger.relay, ledger.epoch)
}

fn field<T>(name: &str, edit: Edit<T>, value: fn(T) -> FieldValue) -> Option<FieldEdit> {
    let value = match edit {
        Edit::Keep => return None,
        Edit::Clear => None,
        Edit::Set(set) => Some(value(set)),
    };
    Some(FieldEdit { record: DocumentId::settings_record(), field: name.to_owned(), value })
}
