//! What follows from a conflict with the server: by the business's rule, or by a person's word.
//! Pure.

use std::collections::BTreeSet;

use crdt_model::merge::{Merged, three_way};
use crdt_model::record::{DeliveryOutcome, Strategy, UpstreamConflict};
use crdt_model::rules::{CLIENT, SERVER};
use serde_json::Value;

use super::classify::Against;
use super::fields::{flatten, patched, unflatten};
use crate::queue::Decided;

/// The person's choice of both, field by field.
pub const MERGED: &str = "merge";

/// An operation as it was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// POST, PUT, PATCH or DELETE.
    pub method: String,
    /// The path at the server.
    pub path: String,
    /// The body, whole: not only what a PATCH would say.
    pub body: Value,
    /// What the client last saw.
    pub base: Option<Value>,
    /// An earlier call may have reached the server.
    pub in_doubt: bool,
}

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing is left to be sent.
    Synced {
        /// Who won; `None` if there was nothing to win.
        strategy: Option<Strategy>,
    },
    /// This is sent instead.
    Send(Instead),
    /// A person decides.
    Person {
        /// The fields that both sides changed apart.
        disputed: BTreeSet<String>,
    },
}

/// What is sent instead.
#[derive(Debug, Clone, PartialEq)]
pub struct Instead {
    /// POST, PUT, PATCH or DELETE.
    pub method: String,
    /// The path at the server.
    pub path: String,
    /// The body.
    pub body: Value,
    /// Only if the server's version still has this tag.
    pub if_match: Option<String>,
    /// Who wins by it.
    pub strategy: Strategy,
}

/// What follows by a rule.
#[must_use]
pub fn by_rule(sent: &Sent, against: &Against, strategy: Strategy) -> Step {
    if against.kind == UpstreamConflict::Duplicate && sent.in_doubt {
        // It is our own, from a call whose answer was lost.
        return Step::Synced { strategy: None };
    }
    let person = || Step::Person { disputed: BTreeSet::new() };
    match (against.kind, strategy) {
        (_, Strategy::Manual) => person(),
        (_, Strategy::ServerWins) => Step::Synced { strategy: Some(Strategy::ServerWins) },
        (UpstreamConflict::Manual, Strategy::ClientWins | Strategy::Merge)
        | (UpstreamConflict::Deleted, Strategy::Merge) => person(),
        (kind, Strategy::ClientWins) => {
            ours(sent, kind, against.tag.clone(), against.server_id.as_deref()).map_or_else(person, Step::Send)
        }
        (UpstreamConflict::Duplicate | UpstreamConflict::VersionMismatch, Strategy::Merge) => {
            let Some(server) = &against.server else { return person() };
            let Ok(merged) = merge(sent, server) else { return person() };
            if !merged.disputed.is_empty() {
                return Step::Person { disputed: merged.disputed };
            }
            let value = unflatten(&merged.fields);
            if value == *server {
                return Step::Synced { strategy: Some(Strategy::Merge) };
            }
            let tag = against.tag.clone();
            instead(sent, against.kind, value, tag, against.server_id.as_deref(), Strategy::Merge)
                .map_or_else(person, Step::Send)
        }
    }
}

/// What follows by a person's word about the conflict that `outcome` tells of. `undoes`: another
/// decision was acted on before, so the server may not have its own version any more.
#[must_use]
pub fn by_person(sent: &Sent, outcome: &DeliveryOutcome, decided: &Decided, undoes: bool) -> Step {
    let person = || Step::Person { disputed: BTreeSet::new() };
    let kind = outcome.conflict.unwrap_or(UpstreamConflict::Manual);
    let server: Option<Value> = outcome.server.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let tag = outcome.server_tag.clone().filter(|_| !undoes);
    let id = outcome.server_id.as_deref();
    let fields: Option<Value> = decided.fields.as_deref().and_then(|text| serde_json::from_str(text).ok());
    match decided.choice.as_str() {
        SERVER if fields.is_none() => match server.filter(|_| undoes) {
            None => Step::Synced { strategy: Some(Strategy::ServerWins) },
            Some(server) => instead(sent, kind, server, tag, id, Strategy::ServerWins).map_or_else(person, Step::Send),
        },
        CLIENT if fields.is_none() => ours(sent, kind, tag, id).map_or_else(person, Step::Send),
        _ => {
            let chosen = match (&server, fields) {
                (Some(server), fields) => {
                    let merged = merge(sent, server).map(|merged| unflatten(&merged.fields));
                    let merged = merged.unwrap_or_else(|_| server.clone());
                    fields.map_or(merged.clone(), |fields| patched(&merged, &fields))
                }
                (None, Some(fields)) => patched(&sent.body, &fields),
                (None, None) => return person(),
            };
            instead(sent, kind, chosen, tag, id, Strategy::Merge).map_or_else(person, Step::Send)
        }
    }
}

/// What both sides made of what the client last saw.
fn merge(sent: &Sent, server: &Value) -> Result<Merged, crdt_model::merge::MergeError> {
    let base = sent.base.clone().unwrap_or(Value::Object(serde_json::Map::new()));
    let client = if sent.method == "PATCH" { patched(&base, &sent.body) } else { sent.body.clone() };
    // What a server adds of its own to every record is nobody's change.
    let mut seen = flatten(&base);
    let theirs = flatten(server);
    let mut ours = flatten(&client);
    for (path, value) in &theirs {
        let own = path == "id" || path == "version" || path.ends_with("_at");
        if own || (sent.base.is_none() && !ours.contains_key(path)) {
            seen.insert(path.clone(), value.clone());
            ours.insert(path.clone(), value.clone());
        }
    }
    three_way(&seen, &ours, &theirs)
}

fn ours(sent: &Sent, kind: UpstreamConflict, tag: Option<String>, server_id: Option<&str>) -> Option<Instead> {
    instead(sent, kind, sent.body.clone(), tag, server_id, Strategy::ClientWins)
}

/// The call that gives the server this version.
fn instead(
    sent: &Sent,
    kind: UpstreamConflict,
    body: Value,
    tag: Option<String>,
    server_id: Option<&str>,
    strategy: Strategy,
) -> Option<Instead> {
    let call = |method: &str, path: String, if_match| {
        Some(Instead { method: method.to_owned(), path, body: body.clone(), if_match, strategy })
    };
    let bare = sent.path.split('?').next().unwrap_or_default();
    match kind {
        UpstreamConflict::VersionMismatch | UpstreamConflict::Manual => call(&sent.method, sent.path.clone(), tag),
        UpstreamConflict::Deleted => {
            let (collection, _) = bare.trim_end_matches('/').rsplit_once('/')?;
            call("POST", collection.to_owned(), None)
        }
        UpstreamConflict::Duplicate if sent.method == "POST" => {
            call("PATCH", format!("{}/{}", bare.trim_end_matches('/'), server_id?), tag)
        }
        UpstreamConflict::Duplicate => call(&sent.method, sent.path.clone(), tag),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sent(method: &str) -> Sent {
        Sent {
            method: method.to_owned(),
            path: "/api/products/7".to_owned(),
            body: json!({"name": "Brown bread", "price": 65}),
            base: Some(json!({"name": "Bread", "price": 65})),
            in_doubt: false,
        }
    }

    fn stale(server: Value) -> Against {
        Against {
            kind: UpstreamConflict::VersionMismatch,
            server: Some(server),
            tag: Some("\"9\"".to_owned()),
            server_id: None,
            detail: String::new(),
            http_status: 412,
        }
    }

    #[test]
    fn fields_that_were_changed_apart_go_together_and_one_that_both_changed_to_a_person() {
        let step = by_rule(&sent("PUT"), &stale(json!({"id": 7, "name": "Bread", "price": 75})), Strategy::Merge);
        let Step::Send(instead) = step else { panic!("{step:?}") };
        assert_eq!(instead.body, json!({"id": 7, "name": "Brown bread", "price": 75}));
        assert_eq!((instead.if_match.as_deref(), instead.strategy), (Some("\"9\""), Strategy::Merge));
        let step = by_rule(&sent("PUT"), &stale(json!({"name": "White bread", "price": 75})), Strategy::Merge);
        assert_eq!(step, Step::Person { disputed: BTreeSet::from(["name".to_owned()]) });
        let step = by_rule(&sent("PUT"), &stale(json!({"name": "Brown bread", "price": 65})), Strategy::Merge);
        assert_eq!(step, Step::Synced { strategy: Some(Strategy::Merge) }, "the server has it all by now");
    }

    #[test]
    fn a_patch_is_a_change_of_what_the_client_saw() {
        let patch = Sent { body: json!({"name": "Brown bread"}), ..sent("PATCH") };
        let step = by_rule(&patch, &stale(json!({"name": "Bread", "price": 75})), Strategy::Merge);
        let Step::Send(instead) = step else { panic!("{step:?}") };
        assert_eq!(instead.body, json!({"name": "Brown bread", "price": 75}));
    }

    #[test]
    fn each_strategy_does_what_it_says_of_each_kind() {
        let against = |kind| Against { kind, server_id: Some("7".to_owned()), ..stale(json!({"name": "x"})) };
        let rule = |method: &str, kind, strategy| by_rule(&sent(method), &against(kind), strategy);
        for kind in [
            UpstreamConflict::Duplicate,
            UpstreamConflict::VersionMismatch,
            UpstreamConflict::Deleted,
            UpstreamConflict::Manual,
        ] {
            assert_eq!(rule("PUT", kind, Strategy::Manual), Step::Person { disputed: BTreeSet::new() });
            let server = Step::Synced { strategy: Some(Strategy::ServerWins) };
            assert_eq!(rule("PUT", kind, Strategy::ServerWins), server);
        }
        let Step::Send(again) = rule("PUT", UpstreamConflict::Deleted, Strategy::ClientWins) else { panic!() };
        assert_eq!((again.method.as_str(), again.path.as_str()), ("POST", "/api/products"));
        let create = Sent { path: "/api/products".to_owned(), ..sent("POST") };
        let duplicate = against(UpstreamConflict::Duplicate);
        let Step::Send(change) = by_rule(&create, &duplicate, Strategy::ClientWins) else { panic!() };
        assert_eq!((change.method.as_str(), change.path.as_str()), ("PATCH", "/api/products/7"));
        let doubted = Sent { in_doubt: true, ..create };
        assert_eq!(by_rule(&doubted, &duplicate, Strategy::Manual), Step::Synced { strategy: None });
    }
}
