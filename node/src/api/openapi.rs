//! The OpenAPI document: what the handlers say of themselves, and what is common to all calls.

use std::sync::OnceLock;

use axum::Json;
use axum::http::Method;
use serde_json::{Map, Value, json};

use super::capability;
use super::guard::Methods;

/// This API, as an OpenAPI 3.1 document.
#[utoipa::path(get, path = "/openapi.json", tag = "service", responses((status = 200, body = Object)))]
pub(super) async fn document() -> Json<&'static Value> {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    Json(DOCUMENT.get_or_init(super::openapi))
}

/// Adds to the handlers' document what they don't say themselves.
pub(super) fn complete(document: utoipa::openapi::OpenApi) -> Value {
    let mut document = serde_json::to_value(document).unwrap_or_default();
    let headers = capability::described();
    let names: Vec<String> = headers.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    if let Some(components) = document.get_mut("components").and_then(Value::as_object_mut) {
        components.insert("headers".to_owned(), headers);
        components.insert("parameters".to_owned(), parameters());
    }
    for (pointer, schema) in unspoken() {
        if let Some(place) = document.pointer_mut(pointer) {
            *place = schema;
        }
    }
    for (method, path, operation) in operations(&mut document) {
        add_parameters(operation, method, path);
        let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { continue };
        for status in ["4XX", "5XX"] {
            responses.entry(status).or_insert_with(problem);
        }
        responses.values_mut().for_each(|response| add_headers(response, &names));
    }
    document
}

/// What the derived schemas can't say.
fn unspoken() -> [(&'static str, Value); 3] {
    let sum = json!({ "description": "Minor units; text where 64 bits don't hold them",
        "type": ["integer", "string"], "pattern": "^-?[0-9]+$" });
    let line = json!({ "oneOf": [{ "type": "null" }, { "$ref": "#/components/schemas/LineBody" }] });
    let settlement = |kinds: Value, more: Value| {
        let mut properties = json!({ "kind": { "type": "string", "enum": kinds } });
        let mut required = vec!["kind".to_owned()];
        for (name, schema) in more.as_object().into_iter().flatten() {
            required.push(name.clone());
            if let Some(properties) = properties.as_object_mut() {
                properties.insert(name.clone(), schema.clone());
            }
        }
        json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false })
    };
    let settlement = json!({ "oneOf": [
        settlement(json!(["as_booked", "not_paid", "keep", "reverse"]), json!({})),
        settlement(json!(["assign"]), json!({ "payment_id": { "type": "string" } })),
    ] });
    [
        ("/components/schemas/SettlementBody", settlement),
        ("/components/schemas/Sum", sum),
        ("/components/schemas/TicketPatch/properties/set_lines/additionalProperties", line),
    ]
}

/// The methods that each path takes. HEAD goes with GET.
pub(super) fn methods(document: &Value) -> Methods {
    let mut methods = Methods::new();
    for (path, item) in document.get("paths").and_then(Value::as_object).into_iter().flatten() {
        let words = item.as_object().into_iter().flatten().map(|(method, _)| method.to_ascii_uppercase());
        let mut taken: Vec<Method> = words.filter_map(|word| word.parse().ok()).collect();
        if taken.contains(&Method::GET) {
            taken.push(Method::HEAD);
        }
        methods.insert(path.clone(), taken);
    }
    methods
}

/// Every operation, with its method and path.
fn operations(document: &mut Value) -> impl Iterator<Item = (&String, &String, &mut Value)> {
    let paths = document.get_mut("paths").and_then(Value::as_object_mut).into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let item = item.as_object_mut().into_iter().flatten();
        item.map(move |(method, operation)| (method, path, operation))
    })
}

/// Any call may be refused.
fn problem() -> Value {
    json!({
        "description": "Nothing was done: a problem document says why",
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } }
    })
}

/// Headers and parameters that calls have in common.
fn parameters() -> Value {
    let header = |name, description, pattern: &str| {
        json!({ "name": name, "in": "header", "description": description, "required": false,
            "schema": { "type": "string", "pattern": pattern } })
    };
    json!({
        "Wait": { "name": "wait", "in": "query", "required": false,
            "description": "How long to wait for the relay, in milliseconds",
            "schema": { "type": "integer", "format": "int64", "minimum": 0, "maximum": super::caller::WAIT_MS_MAX } },
        "BusinessId": { "name": "businessId", "in": "query", "required": false,
            "description": "Checked if it is given: the business of this node",
            "schema": { "type": "string" } },
        "IsOnline": header("X-Is-Online", "false: nothing is waited for", "^(true|false|1|0)$"),
        "DeviceId": header("X-Device-Id", "Whose ids the operation_ids are", VISIBLE),
        "NetworkType": header("X-Network-Type", "The network that the app is on", VISIBLE),
        "IdempotencyKey": header("Idempotency-Key", "The operation's id, like operation_id", VISIBLE),
    })
}

/// Printable ASCII; blanks around it are no part of a header.
const VISIBLE: &str = "^[!-~]([ -~]*[!-~])?$";

/// Those who answer 202 record something for a caller; so do these look at who calls.
const ASKED_BY_CALLERS: [&str; 3] = ["/api/offline/history/{id}", "/api/offline/sync/{id}", "/api/offline/retry"];

fn add_parameters(operation: &mut Value, method: &str, path: &str) {
    let records = operation.pointer("/responses/202").is_some();
    let mut names = Vec::new();
    if path.starts_with("/api/") {
        names.push("BusinessId");
    }
    if records || ASKED_BY_CALLERS.contains(&path) {
        names.extend(["IsOnline", "DeviceId", "NetworkType"]);
    }
    if records {
        names.push("Wait");
        if method != "delete" {
            names.push("IdempotencyKey");
        }
    }
    let Some(operation) = operation.as_object_mut() else { return };
    let parameters = operation.entry("parameters").or_insert_with(|| Value::Array(Vec::new()));
    let references = names.iter().map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }));
    if let Some(parameters) = parameters.as_array_mut() {
        parameters.extend(references);
    }
}

fn add_headers(response: &mut Value, names: &[String]) {
    let Some(response) = response.as_object_mut() else { return };
    let headers = response.entry("headers").or_insert_with(|| Value::Object(Map::new()));
    for name in names {
        if let Some(headers) = headers.as_object_mut() {
            headers.insert(name.clone(), json!({ "$ref": format!("#/components/headers/{name}") }));
        }
    }
}
