//! Changes of the business's config of its queue: checked whole, so that whoever sends them hears
//! of everything that is wrong at once.

use std::collections::BTreeMap;
use std::fmt;

use crdt_model::document::{DocumentId, FieldEdit, FieldValue};
use crdt_model::ids::DeviceId;
use crdt_model::shop::{QueueConfig, QueueField, QueueKind, UPSTREAM_RELAY};

/// New values of fields by their names; `None` gives a field its default again.
pub type Changes = BTreeMap<String, Option<FieldValue>>;

/// Why a field can't be changed so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRefused {
    /// The field.
    pub field: String,
    /// What is wrong with it.
    pub wrong: Wrong,
    /// For people: what would do.
    pub detail: String,
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// There is none of that name.
    Name,
    /// Its value is of another type.
    Type,
    /// Its value is out of bounds, or no word that is known.
    Value,
}

/// Every field that can't be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigRefused(pub Vec<FieldRefused>);

impl fmt::Display for ConfigRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details: Vec<&str> = self.0.iter().map(|refused| refused.detail.as_str()).collect();
        f.write_str(&details.join("; "))
    }
}

/// The edits that make the changes.
///
/// # Errors
/// [`ConfigRefused`].
pub fn edits(changes: Changes) -> Result<Vec<(DocumentId, FieldEdit)>, ConfigRefused> {
    let mut refused = Vec::new();
    let mut edits = Vec::with_capacity(changes.len());
    for (name, value) in changes {
        match edit(&name, value) {
            Ok(edit) => edits.push(edit),
            Err(why) => refused.push(why),
        }
    }
    if refused.is_empty() { Ok(edits) } else { Err(ConfigRefused(refused)) }
}

fn edit(name: &str, value: Option<FieldValue>) -> Result<(DocumentId, FieldEdit), FieldRefused> {
    let refused = |wrong, detail| FieldRefused { field: name.to_owned(), wrong, detail };
    if name == UPSTREAM_RELAY {
        return match &value {
            Some(FieldValue::Text(text)) if text.parse::<DeviceId>().is_err() => {
                Err(refused(Wrong::Value, "upstream_relay must be a device's id, or null".to_owned()))
            }
            Some(FieldValue::Int(_) | FieldValue::Bool(_)) => {
                Err(refused(Wrong::Type, "upstream_relay must be a device's id, or null".to_owned()))
            }
            Some(FieldValue::Text(_)) | None => Ok(QueueConfig::edit(UPSTREAM_RELAY, value)),
        };
    }
    let Some(field) = QueueField::named(name) else {
        let shown: String = name.chars().take(NAME_SHOWN_MAX).collect();
        let detail = format!("{shown} is no field of this config: see GET /api/offline/config for its fields");
        return Err(refused(Wrong::Name, detail));
    };
    if let Some(value) = &value {
        let right_type = match (field.kind, value) {
            (QueueKind::Flag(_), FieldValue::Bool(_))
            | (QueueKind::Number { .. }, FieldValue::Int(_))
            | (QueueKind::Strategy(_), FieldValue::Text(_)) => true,
            (_, _) => false,
        };
        let wrong = if right_type { Wrong::Value } else { Wrong::Type };
        field.check(value).map_err(|detail| refused(wrong, detail))?;
    }
    Ok(QueueConfig::edit(field.name, value))
}

const NAME_SHOWN_MAX: usize = 128;
