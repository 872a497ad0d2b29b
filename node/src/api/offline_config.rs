//! How the business wants its queue: every device of it reads and changes the same.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use crdt_model::document::{DocumentId, FieldValue};
use crdt_model::record::Strategy;
use crdt_model::shop::{QUEUE_FIELDS, QueueField, QueueKind, Shop, UPSTREAM_RELAY};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::answer::{Answer, Changes as Changed, answer};
use super::body::{Body, whole_number};
use super::caller::{Caller, Named};
use super::problem::Problem;
use super::state::ApiState;
use crate::operations::Planned;
use crate::queue::{Changes, ConfigRefused, FieldRefused, Wrong, edits};

macro_rules! config {
    ($($(#[doc = $doc:literal])* $name:ident: $kind:ty,)*) => {
        /// How the business wants its queue. To change it send the fields that change; `null` gives a
        /// field its default again.
        #[derive(Debug, Serialize, ToSchema)]
        #[schema(as = OfflineConfig)]
        pub(super) struct ConfigView {
            $($(#[doc = $doc])* $name: Option<$kind>,)*
        }

        /// Fields to change; `null` gives one its default again.
        #[derive(Debug, Deserialize, ToSchema)]
        #[schema(as = OfflineConfigPatch)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "it describes a body in the OpenAPI document")]
        pub(super) struct ConfigChange {
            operation_id: Option<String>,
            #[serde(rename = "businessId")]
            business_id: Option<String>,
            $($(#[doc = $doc])* $name: Option<$kind>,)*
        }

        #[cfg(test)]
        const DESCRIBED: &[&str] = &[$(stringify!($name),)*];
    };
}

config! {
    /// Record while no relay is connected; without it, 503.
    offline_mode_enabled: bool,
    /// Send without being asked to.
    auto_sync_enabled: bool,
    /// How often to try what nothing else has triggered, 1 to 1440.
    sync_interval_minutes: u32,
    /// After how many tries an operation counts as failed, 1 to 100.
    max_retries: u32,
    allow_sales_offline: bool,
    allow_expenses_offline: bool,
    allow_records_offline: bool,
    allow_payments_offline: bool,
    allow_stock_adjustment_offline: bool,
    allow_custom_offline: bool,
    /// How many operations may wait before others than sales are refused.
    max_queue_size: u32,
    /// client_wins, server_wins, merge or manual.
    default_conflict_strategy: String,
    /// The same for one type; the default one if `null`.
    sale_conflict_strategy: String,
    expense_conflict_strategy: String,
    record_conflict_strategy: String,
    payment_conflict_strategy: String,
    stock_adjustment_conflict_strategy: String,
    /// After how many days the row of a synced operation goes.
    synced_expire_days: u32,
    /// Send only what changed where the server takes a PATCH.
    delta_sync: bool,
    /// Tell the server of products, customers and corrections of notes too.
    send_corrections: bool,
    /// Compress bodies; the server has to take `Content-Encoding: gzip`.
    compress: bool,
    /// Send over Wi-Fi only.
    wifi_only: bool,
    /// How many megabytes a day may go over a metered network; 0: any.
    data_budget_mb_per_day: u32,
    /// Minutes of the shop's day between which to send; the same twice: always.
    off_peak_start_minute: u32,
    off_peak_end_minute: u32,
    /// The relay that sends to the shop's own server: its device id.
    upstream_relay: String,
}

/// Fields to change.
#[derive(Debug, Deserialize)]
pub(super) struct ConfigPatch {
    operation_id: Option<String>,
    #[serde(rename = "businessId", alias = "business_id")]
    business_id: Option<String>,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

impl Named for ConfigPatch {
    fn operation_id(&self) -> Option<&str> {
        self.operation_id.as_deref()
    }

    fn business_id(&self) -> Option<&str> {
        self.business_id.as_deref()
    }
}

/// How the business wants its queue.
#[utoipa::path(get, path = "/api/offline/config", tag = "offline", responses((status = 200, body = ConfigView)))]
pub(super) async fn config(State(state): State<ApiState>) -> Result<Json<Value>, Problem> {
    Ok(Json(state.shop.ask(config_json).await?))
}

/// Changes how the business wants its queue, on all of its devices.
#[utoipa::path(patch, path = "/api/offline/config", tag = "offline", request_body = ConfigChange, responses(Changed))]
pub(super) async fn correct(
    State(state): State<ApiState>,
    caller: Caller,
    Body(body): Body<ConfigPatch>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let mut wrong = Vec::new();
    let mut changes = Changes::new();
    for (name, value) in body.fields {
        match plain(&name, &value) {
            Ok(value) => drop(changes.insert(name, value)),
            Err(refused) => wrong.push(refused),
        }
    }
    // All that is wrong is told at once.
    if !wrong.is_empty() {
        wrong.extend(edits(changes).err().map(|ConfigRefused(more)| more).unwrap_or_default());
        wrong.sort_by(|a, b| a.field.cmp(&b.field));
        return Err(ConfigRefused(wrong).into());
    }
    let acted = state.queue.update_config(changes).await?;
    let planned = Planned { record: Some(DocumentId::settings_record()), ..Planned::default() };
    answer(&state, &caller, source.as_ref(), acted, planned, Answer::Changed).await
}

/// A value as documents hold it; `None` for `null`.
fn plain(name: &str, value: &Value) -> Result<Option<FieldValue>, FieldRefused> {
    let given = match value {
        Value::Null => return Ok(None),
        Value::Bool(yes) => Some(FieldValue::Bool(*yes)),
        // What is beyond any of the limits is a number all the same.
        Value::Number(number) => whole_number(number).map(FieldValue::Int),
        Value::String(text) => Some(FieldValue::Text(text.clone())),
        Value::Array(_) | Value::Object(_) => None,
    };
    if given.is_some() {
        return Ok(given);
    }
    // No field is a fraction, a list or an object: what would do is what the field says of a text.
    let detail = match QueueField::named(name).map(|field| field.check(&FieldValue::Text(String::new()))) {
        Some(Err(detail)) => detail,
        Some(Ok(())) | None => format!("{name} must be a text, a whole number, true, false or null"),
    };
    let wrong = if QueueField::named(name).is_some() || name == UPSTREAM_RELAY { Wrong::Type } else { Wrong::Name };
    Err(FieldRefused { field: name.to_owned(), wrong, detail })
}

fn config_json(shop: &Shop) -> Value {
    let document = shop.document(DocumentId::Settings);
    let mut fields = Map::new();
    for field in QUEUE_FIELDS {
        let said = document
            .and_then(|document| document.field(DocumentId::settings_record(), field.name))
            .filter(|value| field.check(value).is_ok());
        let value = match (said, field.kind) {
            (Some(value), _) => super::values::field_json(&value),
            (None, QueueKind::Flag(yes)) => yes.into(),
            (None, QueueKind::Number { default, .. }) => default.into(),
            (None, QueueKind::Strategy(default)) => default.map(Strategy::word).into(),
        };
        fields.insert(field.name.to_owned(), value);
    }
    fields.insert(UPSTREAM_RELAY.to_owned(), shop.upstream_relay().map(|relay| relay.to_string()).into());
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_describes_every_field_there_is() {
        let fields: Vec<&str> = QUEUE_FIELDS.iter().map(|field| field.name).chain([UPSTREAM_RELAY]).collect();
        assert_eq!(DESCRIBED, fields);
    }
}
