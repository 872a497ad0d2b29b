//! Conflicts: what a merge must not decide in silence, with both sides, and their resolution.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use crdt_model::document::{DocumentId, FieldEdit, FieldValue, parse_key};
use crdt_model::ids::RecordId;
use crdt_model::record::{Fact, Resolution, UpstreamConflict, UpstreamFact};
use crdt_model::rules::{Conflict, ConflictKind, ConflictState, Decision as Decided, Side};
use crdt_model::shop::{Operation, Shop};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::{Answer, Changes, record};
use super::body::{Body, Query};
use super::caller::{Caller, named};
use super::fact_json::{fact_json, given_json};
use super::list::{Listed, Page, bad_cursor};
use super::problem::{Code, Problem, path_id};
use super::state::ApiState;
use super::values::{field_json, recorded_at};
use crate::operations::{Planned, stored_fact};
use crate::queue::{Choice, Decision, QueueError, describe};

/// Which conflicts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Also those that were decided.
    #[serde(default)]
    all: bool,
}

/// A person's decision: one of the sides, or another value for a field.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResolveBody {
    operation_id: Option<String>,
    #[serde(rename = "businessId")]
    business_id: Option<String>,
    /// The label of the side that is picked.
    choice: Option<String>,
    /// Another value, for a conflict of kind `field`.
    #[schema(value_type = serde_json::Value, required = false)]
    value: Option<serde_json::Value>,
    /// For a conflict of kind `upstream`: values of single fields, over what merges by itself;
    /// `null` takes a field away. `choice` is `client`, `server`, or `merge` for both.
    #[schema(value_type = Option<Object>)]
    fields: Option<serde_json::Map<String, serde_json::Value>>,
    /// Why.
    note: Option<String>,
}

named!(ResolveBody);

/// A conflict.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConflictView {
    id: String,
    /// same_id_other_body, voided_and_paid, paid_twice, double_claim, oversold,
    /// ticket_closed_twice, handoff_decided, handoff_torn, journal_forked, upstream or field.
    kind: &'static str,
    /// open or resolved.
    state: &'static str,
    /// The record that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    record_id: Option<String>,
    /// For oversold stock.
    #[serde(skip_serializing_if = "Option::is_none")]
    sku: Option<String>,
    /// For a field: the shared document and the field's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// What stands against what; what counts until a person decides comes first.
    sides: Vec<SideView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution: Option<DecisionView>,
    /// Every decision about it, the earliest first; the last one counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<DecisionView>,
    /// For `upstream`: what the server said.
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<UpstreamView>,
}

/// What the shop's own server has against an operation.
#[derive(Debug, Serialize, ToSchema)]
struct UpstreamView {
    /// DUPLICATE, VERSION_MISMATCH, DELETED or MANUAL.
    conflict_type: Option<&'static str>,
    /// The fields that both sides changed apart, as paths.
    disputed: Vec<String>,
    /// What the client last saw.
    #[schema(value_type = serde_json::Value)]
    base: Option<serde_json::Value>,
    server_id: Option<String>,
    detail: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct SideView {
    /// What `choice` names.
    label: String,
    /// The figures hold it.
    counted: bool,
    /// The device that wrote it, where it is known.
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded_at: Option<String>,
    /// The fact, or the field's value; `null` where there is none.
    value: serde_json::Value,
}

#[derive(Debug, Serialize, ToSchema)]
struct DecisionView {
    choice: String,
    /// What was decided field by field.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    fields: Option<serde_json::Value>,
    note: Option<String>,
    device: String,
    at: String,
}

/// A field with different values at the same time.
struct FieldConflict {
    document: DocumentId,
    record: RecordId,
    field: String,
    values: Vec<(FieldValue, Option<String>)>,
}

/// Lists conflicts in the order of their ids.
#[utoipa::path(get, path = "/api/conflicts", tag = "conflicts", params(Page, Which),
    responses((status = 200, body = Listed<ConflictView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Query(page): Query<Page>,
    Query(which): Query<Which>,
) -> Result<Json<Listed<ConflictView>>, Problem> {
    let limit = page.limit()?;
    let after: Option<RecordId> = page.cursor().map(|id| id.parse().map_err(|_| bad_cursor())).transpose()?;
    let (facts, fields) = state
        .shop
        .ask(move |shop| {
            let behind = |id: RecordId| after.is_none_or(|after| id > after);
            let facts = shop.books().conflicts(!which.all).filter(|conflict| behind(conflict.id)).take(limit + 1);
            let facts = facts.chain(forks(shop, !which.all).filter(|conflict| behind(conflict.id)));
            let mut fields: Vec<_> = field_conflicts(shop).into_iter().filter(|(id, _)| behind(*id)).collect();
            fields.sort_by_key(|(id, _)| *id);
            fields.truncate(limit + 1);
            (facts.collect::<Vec<Conflict>>(), fields)
        })
        .await?;
    let mut views = Vec::with_capacity(facts.len() + fields.len());
    for conflict in facts {
        views.push((conflict.id, fact_view(&state, conflict).await?));
    }
    views.extend(fields.into_iter().map(|(id, conflict)| (id, field_view(id, conflict))));
    views.sort_by_key(|(id, _)| *id);
    Ok(Json(Listed::of(views, limit, |(id, _)| id.to_string()).map(|(_, view)| view)))
}

/// Decides a conflict.
#[utoipa::path(post, path = "/api/conflicts/{id}/resolve", tag = "conflicts", params(("id" = String, Path)),
    request_body = ResolveBody, responses(Changes))]
pub(super) async fn resolve(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<ResolveBody>,
) -> Result<Response, Problem> {
    let source = caller.source(&state, &body).await?;
    let conflict: RecordId = path_id("conflict", &id)?;
    let (fact, field) = state
        .shop
        .ask(move |shop| {
            let field = field_conflicts(shop).into_iter().find(|(id, _)| *id == conflict);
            let forked = || forks(shop, false).find(|forked| forked.id == conflict);
            (shop.books().conflict(conflict).or_else(forked), field.map(|(_, field)| field))
        })
        .await?;
    let planned = match (fact, field) {
        (Some(fact), _) => decide(&fact, body)?,
        (None, Some(field)) => decide_field(conflict, field, body)?,
        (None, None) => return Err(Problem::not_found("conflict", &id)),
    };
    record(&state, &caller, source.as_ref(), planned, Answer::Changed).await
}

fn decide(conflict: &Conflict, body: ResolveBody) -> Result<Planned, Problem> {
    if body.value.is_some() {
        let detail = "value is only for a conflict of kind field: pick a side with choice";
        return Err(Problem::at(Code::InvalidField, "value", detail));
    }
    if conflict.kind == ConflictKind::Upstream {
        return decide_upstream(conflict, body);
    }
    if body.fields.is_some() {
        let detail = "fields is only for a conflict of kind upstream: pick a side with choice";
        return Err(Problem::at(Code::InvalidField, "fields", detail));
    }
    let choice = body.choice.ok_or_else(choice_missing)?;
    // Oversold stock has no sides, and those of a forked journal all count: a person says in their
    // own words what was done.
    let free = conflict.sides.is_empty() || conflict.kind == ConflictKind::JournalForked;
    if !free && !conflict.sides.iter().any(|side| side.label == choice) {
        return Err(no_such_side());
    }
    let fact = Fact::Resolution(Resolution { conflict: conflict.id, choice, note: body.note, fields: None });
    let operation = Operation { facts: vec![fact], ..Operation::default() };
    Ok(Planned { operation, record: Some(conflict.id), ..Planned::default() })
}

/// Against the shop's own server: a side, both, or single fields over what merges by itself.
fn decide_upstream(conflict: &Conflict, body: ResolveBody) -> Result<Planned, Problem> {
    let choice = match (body.choice.as_deref(), &body.fields) {
        (Some(word), _) => Choice::parse(word)
            .ok_or_else(|| Problem::at(Code::InvalidField, "choice", "choice must be client, server or merge"))?,
        (None, Some(_)) => Choice::Merge,
        (None, None) => return Err(choice_missing()),
    };
    let fields = body.fields.map(|fields| serde_json::Value::Object(fields).to_string());
    let decision = Decision { choice, fields, note: body.note };
    let fact = decision.about(conflict.id).map_err(QueueError::from)?;
    let operation = Operation { facts: vec![fact], ..Operation::default() };
    Ok(Planned { operation, record: Some(conflict.id), ..Planned::default() })
}

fn decide_field(id: RecordId, conflict: FieldConflict, body: ResolveBody) -> Result<Planned, Problem> {
    let value = match (body.choice, body.value) {
        (Some(_), Some(_)) => {
            return Err(Problem::at(Code::InvalidField, "value", "value and choice are both given: send one"));
        }
        (None, None) => return Err(choice_missing()),
        (Some(choice), None) => {
            let mut sides = (1..).zip(conflict.values).filter(|(label, _): &(u32, _)| label.to_string() == choice);
            sides.next().map(|(_, (value, _))| value).ok_or_else(no_such_side)?
        }
        (None, Some(value)) => field_value(&value, &conflict.values)?,
    };
    let edit = FieldEdit { record: conflict.record, field: conflict.field, value: Some(value) };
    let operation = Operation { edits: vec![(conflict.document, edit)], ..Operation::default() };
    Ok(Planned { operation, record: Some(id), ..Planned::default() })
}

fn choice_missing() -> Problem {
    Problem::at(Code::InvalidField, "choice", "choice is missing: name the side that is picked by its label")
}

fn no_such_side() -> Problem {
    Problem::at(Code::InvalidField, "choice", "choice names no side of this conflict: use one of their labels")
}

/// A value of the type that the field has.
fn field_value(value: &serde_json::Value, now: &[(FieldValue, Option<String>)]) -> Result<FieldValue, Problem> {
    let refused = || Problem::at(Code::InvalidField, "value", "value must be of the type that the sides have");
    let given = if let Some(text) = value.as_str() {
        FieldValue::Text(text.to_owned())
    } else if let Some(number) = value.as_i64() {
        FieldValue::Int(number)
    } else if let Some(yes) = value.as_bool() {
        FieldValue::Bool(yes)
    } else {
        return Err(refused());
    };
    let alike = |(other, _): &(FieldValue, _)| std::mem::discriminant(other) == std::mem::discriminant(&given);
    if now.iter().any(alike) { Ok(given) } else { Err(refused()) }
}

/// The fields with different values, each under an id that is the same on every device.
fn field_conflicts(shop: &Shop) -> Vec<(RecordId, FieldConflict)> {
    let found = shop.field_conflicts().filter_map(|(document, key)| {
        let (record, field) = parse_key(key)?;
        let id = RecordId::from_client(shop.business(), "field conflict", &format!("{document}/{key}"));
        let values = shop.document(*document)?.values(record, field).into_iter().map(|valued| {
            let device = shop.journal(valued.by).map(|journal| journal.info.device().to_string());
            (valued.value, device)
        });
        let values = values.collect();
        Some((id, FieldConflict { document: *document, record, field: field.to_owned(), values }))
    });
    found.collect()
}

/// Where journals have forked.
fn forks(shop: &Shop, open_only: bool) -> impl Iterator<Item = Conflict> {
    shop.fork_conflicts().into_iter().filter(move |fork| !open_only || fork.state == ConflictState::Open)
}

async fn fact_view(state: &ApiState, conflict: Conflict) -> Result<ConflictView, Problem> {
    let mut sides = Vec::with_capacity(conflict.sides.len());
    let mut upstream = None;
    for side in conflict.sides {
        let fact = stored_fact(&state.shop, side.place, side.index).await?;
        if conflict.kind == ConflictKind::Upstream {
            let value = upstream_side(fact.as_ref(), conflict.record, &mut upstream);
            sides.push(side_view(side, value));
            continue;
        }
        let value = fact.as_ref().map(fact_json).unwrap_or_default();
        let forked = conflict.kind == ConflictKind::JournalForked;
        sides.push(if forked { branch_view(state, side, value)? } else { side_view(side, value) });
    }
    let (word, resolution) = match conflict.state {
        ConflictState::Open => ("open", None),
        ConflictState::Resolved(decision) => ("resolved", Some(decision_view(decision))),
    };
    let id = conflict.id;
    let history =
        state.shop.ask(move |shop| shop.books().decisions(id).map(|(_, one)| one.clone()).collect::<Vec<_>>()).await?;
    Ok(ConflictView {
        id: conflict.id.to_string(),
        kind: kind_word(conflict.kind),
        state: word,
        record_id: conflict.record.map(|id| id.to_string()),
        sku: conflict.sku,
        document: None,
        field: None,
        sides,
        resolution,
        history: history.into_iter().map(decision_view).collect(),
        upstream,
    })
}

fn decision_view(decision: Decided) -> DecisionView {
    DecisionView {
        choice: decision.choice,
        fields: decision.fields.as_deref().map(given_json),
        note: decision.note,
        device: decision.device.to_string(),
        at: recorded_at(decision.time),
    }
}

fn side_view(side: Side, value: serde_json::Value) -> SideView {
    SideView {
        label: side.label,
        counted: side.counted,
        device: Some(side.device.to_string()),
        recorded_at: Some(recorded_at(side.time)),
        value,
    }
}

/// A branch of a forked journal, with its first fact.
fn branch_view(state: &ApiState, side: Side, value: serde_json::Value) -> Result<SideView, Problem> {
    let first = state.shop.entry(side.place)?;
    let recorded_at = first.map(|entry| recorded_at(entry.time));
    Ok(SideView { recorded_at, ..side_view(side, value) })
}

/// What a side would have at the server; what the server said besides goes into `upstream`.
fn upstream_side(
    fact: Option<&Fact>,
    operation: Option<RecordId>,
    upstream: &mut Option<UpstreamView>,
) -> serde_json::Value {
    let about = upstream.get_or_insert(UpstreamView {
        conflict_type: None,
        disputed: Vec::new(),
        base: None,
        server_id: None,
        detail: None,
    });
    match fact {
        Some(Fact::Upstream(UpstreamFact::Outcome(outcome))) => {
            about.conflict_type = outcome.conflict.map(UpstreamConflict::word);
            about.disputed.clone_from(&outcome.disputed);
            about.server_id.clone_from(&outcome.server_id);
            about.detail.clone_from(&outcome.detail);
            outcome.server.as_deref().map(given_json).unwrap_or_default()
        }
        Some(fact) => {
            if let Fact::Custom(custom) = fact {
                about.base = custom.base.as_deref().map(given_json);
            }
            let described = operation.and_then(|operation| describe(fact, operation));
            described.map(|described| described.body).unwrap_or_default()
        }
        None => serde_json::Value::Null,
    }
}

fn field_view(id: RecordId, conflict: FieldConflict) -> ConflictView {
    let sides = (1..).zip(conflict.values).map(|(label, (value, device)): (u32, _)| SideView {
        label: label.to_string(),
        counted: false,
        device,
        recorded_at: None,
        value: field_json(&value),
    });
    ConflictView {
        id: id.to_string(),
        kind: kind_word(ConflictKind::Field),
        state: "open",
        record_id: Some(conflict.record.to_string()),
        sku: None,
        document: Some(conflict.document.to_string()),
        field: Some(conflict.field),
        sides: sides.collect(),
        resolution: None,
        history: Vec::new(),
        upstream: None,
    }
}

const fn kind_word(kind: ConflictKind) -> &'static str {
    match kind {
        ConflictKind::SameIdOtherBody => "same_id_other_body",
        ConflictKind::VoidedAndPaid => "voided_and_paid",
        ConflictKind::PaidTwice => "paid_twice",
        ConflictKind::DoubleClaim => "double_claim",
        ConflictKind::Oversold => "oversold",
        ConflictKind::TicketClosedTwice => "ticket_closed_twice",
        ConflictKind::Field => "field",
        ConflictKind::HandoffDecided => "handoff_decided",
        ConflictKind::HandoffTorn => "handoff_torn",
        ConflictKind::Upstream => "upstream",
        ConflictKind::JournalForked => "journal_forked",
    }
}
