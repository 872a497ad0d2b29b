//! The capability headers: every answer says what this node does for its client while there is no
//! network, so that a client needs no configuration of its own.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use crdt_model::shop::{OPERATION_TYPES, QueueConfig};
use serde_json::{Value, json};

/// `true`: what is recorded here is durable without a network, and goes on when there is one.
pub const OFFLINE_CAPABLE: &str = "x-offline-capable";
/// `enabled` or `disabled`: whether the business records while its relay is away.
pub const OFFLINE_MODE: &str = "x-offline-mode";
/// The types of operations that may be recorded while the relay is away, with commas between;
/// `custom` stands for the app's own.
pub const OFFLINE_OPERATIONS: &str = "x-offline-operations";
/// `enabled` or `disabled`: whether what waits is sent without being asked to.
pub const AUTO_SYNC: &str = "x-auto-sync";
/// Who wins against the shop's own server: `client_wins`, `server_wins`, `merge` or `manual`.
pub const CONFLICT_STRATEGY: &str = "x-conflict-strategy";

/// Every capability header, with what it means.
pub const CAPABILITY_HEADERS: [(&str, &str); 5] = [
    (OFFLINE_CAPABLE, "What is recorded is durable without a network, and goes on when there is one"),
    (OFFLINE_MODE, "Whether the business records while its relay is away"),
    (OFFLINE_OPERATIONS, "The types of operations that may be recorded while the relay is away, with commas between"),
    (AUTO_SYNC, "Whether what waits is sent without being asked to"),
    (CONFLICT_STRATEGY, "Who wins against the shop's own server, unless the type of operation says otherwise"),
];

/// Writes the capability headers of an answer.
pub fn add_capabilities(headers: &mut HeaderMap, config: &QueueConfig) {
    let mut put = |name, value| drop(headers.insert(HeaderName::from_static(name), value));
    put(OFFLINE_CAPABLE, HeaderValue::from_static("true"));
    put(OFFLINE_MODE, switch(config.offline_mode_enabled));
    put(OFFLINE_OPERATIONS, operations(config));
    put(AUTO_SYNC, switch(config.auto_sync_enabled));
    put(CONFLICT_STRATEGY, HeaderValue::from_static(config.default_conflict_strategy.word()));
}

/// The headers as OpenAPI describes them.
pub(super) fn described() -> Value {
    let switch = json!({ "type": "string", "enum": ["enabled", "disabled"] });
    let header = |(name, meaning): (&str, &str)| {
        let schema = match name {
            OFFLINE_CAPABLE => json!({ "type": "string", "enum": ["true"] }),
            OFFLINE_MODE | AUTO_SYNC => switch.clone(),
            CONFLICT_STRATEGY => {
                json!({ "type": "string", "enum": ["client_wins", "server_wins", "merge", "manual"] })
            }
            _ => json!({ "type": "string" }),
        };
        (name.to_owned(), json!({ "description": meaning, "required": true, "schema": schema }))
    };
    Value::Object(CAPABILITY_HEADERS.into_iter().map(header).collect())
}

fn switch(on: bool) -> HeaderValue {
    HeaderValue::from_static(if on { "enabled" } else { "disabled" })
}

fn operations(config: &QueueConfig) -> HeaderValue {
    let types = OPERATION_TYPES.into_iter().chain(["custom"]);
    let allowed: Vec<&str> = types.filter(|kind| config.offline_mode_enabled && config.allows_offline(kind)).collect();
    HeaderValue::from_str(&allowed.join(",")).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_say_what_the_business_allows() {
        let mut headers = HeaderMap::new();
        add_capabilities(&mut headers, &QueueConfig::default());
        assert_eq!(headers[OFFLINE_OPERATIONS], "sale,expense,record,payment,stock_adjustment,custom");
        assert_eq!((&headers[OFFLINE_MODE], &headers[CONFLICT_STRATEGY]), (&switch(true), &"merge".parse().unwrap()));

        let mut config = QueueConfig { auto_sync_enabled: false, ..QueueConfig::default() };
        config.refused_offline = vec!["expense", "custom"];
        add_capabilities(&mut headers, &config);
        assert_eq!(headers[OFFLINE_OPERATIONS], "sale,record,payment,stock_adjustment");
        assert_eq!(headers[AUTO_SYNC], "disabled");

        config.offline_mode_enabled = false;
        add_capabilities(&mut headers, &config);
        assert_eq!((&headers[OFFLINE_MODE], &headers[OFFLINE_OPERATIONS]), (&switch(false), &"".parse().unwrap()));
        assert_eq!(headers.len(), CAPABILITY_HEADERS.len());
    }
}
