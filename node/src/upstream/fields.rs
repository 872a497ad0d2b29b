//! JSON objects as fields, so that they merge field by field: nested objects become paths, and
//! everything else, lists too, is a field of its own.

use crdt_model::merge::Fields;
use serde_json::{Map, Value};

/// The fields of an object. Keys keep their order of names, so equal objects give equal fields.
#[must_use]
pub fn flatten(value: &Value) -> Fields {
    let mut fields = Fields::new();
    if let Value::Object(object) = value {
        add(object, "", 0, &mut fields);
    }
    fields
}

/// The object of some fields.
#[must_use]
pub fn unflatten(fields: &Fields) -> Value {
    let mut object = Map::new();
    for (path, text) in fields {
        let value = serde_json::from_str(text).unwrap_or(Value::Null);
        let pieces: Vec<String> = path.split('/').map(unescape).collect();
        put(&mut object, &pieces, value);
    }
    Value::Object(object)
}

/// What of `value` differs from `base`: what a PATCH has to say.
#[must_use]
pub fn changed(base: &Value, value: &Value) -> Value {
    let (Value::Object(base), Value::Object(value)) = (base, value) else { return value.clone() };
    let mut changed = Map::new();
    for (key, new) in value {
        match base.get(key) {
            Some(old) if old == new => {}
            Some(old @ Value::Object(_)) if new.is_object() => {
                changed.insert(key.clone(), self::changed(old, new));
            }
            Some(_) | None => {
                changed.insert(key.clone(), new.clone());
            }
        }
    }
    Value::Object(changed)
}

/// `base` with the fields of a PATCH over it; `null` takes a field away (RFC 7396).
#[must_use]
pub fn patched(base: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut object = base.as_object().cloned().unwrap_or_default();
    for (key, value) in patch {
        if value.is_null() {
            object.remove(key);
        } else {
            let before = object.get(key).cloned().unwrap_or(Value::Null);
            object.insert(key.clone(), patched(&before, value));
        }
    }
    Value::Object(object)
}

/// Deeper objects are one field.
const DEPTH_MAX: usize = 8;

fn add(object: &Map<String, Value>, prefix: &str, depth: usize, fields: &mut Fields) {
    for (key, value) in object {
        let path = format!("{prefix}{}", key.replace('~', "~0").replace('/', "~1"));
        let nested = value.as_object().filter(|inner| !inner.is_empty() && depth < DEPTH_MAX);
        if let Some(inner) = nested {
            add(inner, &format!("{path}/"), depth + 1, fields);
        } else {
            fields.insert(path, value.to_string());
        }
    }
}

fn unescape(piece: &str) -> String {
    piece.replace("~1", "/").replace("~0", "~")
}

fn put(object: &mut Map<String, Value>, pieces: &[String], value: Value) {
    match pieces {
        [] => {}
        [last] => {
            object.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let inner = object.entry(first.clone()).or_insert_with(|| Value::Object(Map::new()));
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_comes_back_from_its_fields() {
        for value in [json!({"a": 1, "b": {"c": [1, {"d": 2}], "e/f~g": "x", "empty": {}}, "n": null}), json!({})] {
            assert_eq!(unflatten(&flatten(&value)), value);
        }
    }

    #[test]
    fn a_patch_says_what_differs_and_gives_the_same_again() {
        let base = json!({"name": "Bread", "price": 65, "at": {"shelf": 1, "row": 2}});
        let value = json!({"name": "Bread", "price": 70, "at": {"shelf": 1, "row": 3}});
        let patch = changed(&base, &value);
        assert_eq!(patch, json!({"price": 70, "at": {"row": 3}}));
        assert_eq!(patched(&base, &patch), value);
        assert_eq!(patched(&base, &json!({"price": null})), json!({"name": "Bread", "at": {"shelf": 1, "row": 2}}));
    }
}
