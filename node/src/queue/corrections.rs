//! Changes of shared records as operations for the shop's server: in the entry of the change itself,
//! with only the fields that change, so that both are recorded or neither.

use crdt_model::document::{DELETED, FieldValue};
use crdt_model::record::{Custom, Fact, Source};
use serde_json::{Map, Value};

use super::handle::{Queue, QueueError};
use crate::operations::{CREATED_FROM, Planned, SharedRecord};

/// What happens to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is new: POST.
    Created,
    /// Some of its fields change: PATCH.
    Corrected,
    /// It goes: DELETE.
    Deleted,
}

/// The client instance of these operations.
pub(crate) const INSTANCE: &str = "corrections";

impl Queue {
    /// Adds to a change of a shared record what the shop's server is told of it, if the business
    /// wants that (`send_corrections`) and the shop has a server. `path` is the collection's for
    /// what is new, the record's otherwise; `key` names the operation, where it is made once.
    ///
    /// # Errors
    /// [`QueueError`].
    pub(crate) async fn tell_server(
        &self,
        mut planned: Planned,
        operation_type: &str,
        path: String,
        change: Change,
        key: Option<String>,
    ) -> Result<Planned, QueueError> {
        let wanted = self.desk().offline().config().send_corrections && !planned.operation.edits.is_empty();
        if !wanted || !self.desk().is_engaged().await? {
            return Ok(planned);
        }
        let edits = planned.operation.edits.clone();
        let before = self.shop().ask(move |shop| {
            let mut before = Map::new();
            for (document, edit) in edits {
                let now = SharedRecord::read(shop, document, edit.record);
                before.insert(edit.field.clone(), now.fields.get(&edit.field).map_or(Value::Null, json));
            }
            before
        });
        let (before, mut after) = (before.await?, Map::new());
        for (_, edit) in &planned.operation.edits {
            if edit.field != DELETED && edit.field != CREATED_FROM {
                after.insert(edit.field.clone(), edit.value.as_ref().map_or(Value::Null, json));
            }
        }
        let (method, body) = match change {
            Change::Created => {
                after.retain(|_, value| !value.is_null());
                if let Some(record) = planned.record {
                    after.insert("id".to_owned(), record.to_string().into());
                }
                ("POST", Value::Object(after))
            }
            Change::Corrected => ("PATCH", Value::Object(after)),
            Change::Deleted => ("DELETE", Value::Null),
        };
        let key = match key {
            Some(key) => key,
            None => uuid::Uuid::new_v8(crate::folder::random::<16>()?).to_string(),
        };
        planned.operation.facts.push(Fact::Custom(Custom {
            source: Some(Source { instance: INSTANCE.to_owned(), key }),
            operation_type: operation_type.to_owned(),
            method: method.to_owned(),
            path,
            body: body.to_string(),
            base: (change == Change::Corrected).then(|| Value::Object(before).to_string()),
            network_type: self.desk().network_type(),
            ..Custom::default()
        }));
        Ok(planned)
    }
}

fn json(value: &FieldValue) -> Value {
    match value {
        FieldValue::Text(text) => text.clone().into(),
        FieldValue::Int(number) => (*number).into(),
        FieldValue::Bool(yes) => (*yes).into(),
    }
}
