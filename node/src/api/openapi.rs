//! The OpenAPI document: what the handlers say of themselves, and what is common to all calls.

use serde_json::{Map, Value, json};

use super::capability;

/// Adds to the handlers' document what they don't say themselves.
pub(super) fn complete(document: utoipa::openapi::OpenApi) -> Value {
    let mut document = serde_json::to_value(document).unwrap_or_default();
    let headers = capability::described();
    let names: Vec<String> = headers.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    if let Some(components) = document.get_mut("components").and_then(Value::as_object_mut) {
        components.insert("headers".to_owned(), headers);
    }
    for (_, _, operation) in operations(&mut document) {
        for response in members(operation.get_mut("responses")) {
            add_headers(response, &names);
        }
    }
    document
}

/// Every operation, with its method and path.
fn operations(document: &mut Value) -> impl Iterator<Item = (&String, &String, &mut Value)> {
    let paths = document.get_mut("paths").and_then(Value::as_object_mut).into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let item = item.as_object_mut().into_iter().flatten();
        item.map(move |(method, operation)| (method, path, operation))
    })
}

fn members(value: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    value.and_then(Value::as_object_mut).into_iter().flatten().map(|(_, member)| member)
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
