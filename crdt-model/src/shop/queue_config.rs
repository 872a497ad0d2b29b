//! How a business wants its queue: fields of the settings document, each with its default and
//! its limits, so that every device checks and reads them alike.

use super::Shop;
use crate::document::{DocumentId, FieldEdit, FieldValue, field_key};
use crate::ids::DeviceId;
use crate::record::Strategy;

/// Which relay sends operations to the shop's own server: its device id.
pub const UPSTREAM_RELAY: &str = "upstream_relay";

/// The types of operations, as the API names them.
pub const OPERATION_TYPES: [&str; 5] = ["sale", "expense", "record", "payment", "stock_adjustment"];

/// How a business wants its queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueConfig {
    /// Record while no relay is connected.
    pub offline_mode_enabled: bool,
    /// Send without being asked to.
    pub auto_sync_enabled: bool,
    /// How often to try what nothing else has triggered.
    pub sync_interval_minutes: u64,
    /// After how many tries an operation counts as failed.
    pub max_retries: u64,
    /// Types of operations that may not be recorded offline.
    pub refused_offline: Vec<&'static str>,
    /// How many operations may wait before others than sales are refused.
    pub max_queue_size: u64,
    /// Who wins against the server.
    pub default_conflict_strategy: Strategy,
    /// The same for one type of operation.
    pub strategies: Vec<(&'static str, Strategy)>,
    /// After how many days the row of a synced operation goes.
    pub synced_expire_days: u64,
    /// Send only what changed where the server takes a PATCH.
    pub delta_sync: bool,
    /// Tell the server of corrections, products and customers too.
    pub send_corrections: bool,
    /// Compress what is sent.
    pub compress: bool,
    /// Send over Wi-Fi only.
    pub wifi_only: bool,
    /// How many megabytes a day may go over a metered network; 0: any.
    pub data_budget_mb_per_day: u64,
    /// Minutes of the shop's day between which to send; the same twice: always.
    pub off_peak_start_minute: u64,
    /// See `off_peak_start_minute`.
    pub off_peak_end_minute: u64,
}

/// A field of the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueField {
    /// Its name, in the API and in the settings document.
    pub name: &'static str,
    /// What it may be.
    pub kind: QueueKind,
}

/// What a field of the config may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueKind {
    /// Yes or no; and what it is if nobody said.
    Flag(bool),
    /// A number between two; and what it is if nobody said.
    Number {
        /// If nobody said.
        default: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A strategy; and what it is if nobody said (`None`: the default one).
    Strategy(Option<Strategy>),
}

/// Every field of the config, in the order in which it is shown.
pub const QUEUE_FIELDS: [QueueField; 25] = [
    flag("offline_mode_enabled", true),
    flag("auto_sync_enabled", true),
    number("sync_interval_minutes", 5, 1, 24 * 60),
    number("max_retries", 3, 1, 100),
    flag("allow_sales_offline", true),
    flag("allow_expenses_offline", true),
    flag("allow_records_offline", true),
    flag("allow_payments_offline", true),
    flag("allow_stock_adjustment_offline", true),
    flag("allow_custom_offline", true),
    number("max_queue_size", 500, 1, 1_000_000),
    strategy("default_conflict_strategy", Some(Strategy::Merge)),
    strategy("sale_conflict_strategy", None),
    strategy("expense_conflict_strategy", None),
    strategy("record_conflict_strategy", None),
    strategy("payment_conflict_strategy", None),
    strategy("stock_adjustment_conflict_strategy", None),
    number("synced_expire_days", 30, 1, 3_650),
    flag("delta_sync", true),
    flag("send_corrections", false),
    flag("compress", false),
    flag("wifi_only", false),
    number("data_budget_mb_per_day", 0, 0, 1_000_000),
    number("off_peak_start_minute", 0, 0, 24 * 60),
    number("off_peak_end_minute", 0, 0, 24 * 60),
];

const fn flag(name: &'static str, default: bool) -> QueueField {
    QueueField { name, kind: QueueKind::Flag(default) }
}

const fn number(name: &'static str, default: u64, min: u64, max: u64) -> QueueField {
    QueueField { name, kind: QueueKind::Number { default, min, max } }
}

const fn strategy(name: &'static str, default: Option<Strategy>) -> QueueField {
    QueueField { name, kind: QueueKind::Strategy(default) }
}

impl QueueField {
    /// The field of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        QUEUE_FIELDS.into_iter().find(|field| field.name == name)
    }

    /// Checks a value.
    ///
    /// # Errors
    /// What would do.
    pub fn check(self, value: &FieldValue) -> Result<(), String> {
        let name = self.name;
        match (self.kind, value) {
            (QueueKind::Flag(_), FieldValue::Bool(_)) => Ok(()),
            (QueueKind::Flag(_), _) => Err(format!("{name} must be true or false")),
            (QueueKind::Number { min, max, .. }, FieldValue::Int(given)) => {
                let fits = u64::try_from(*given).is_ok_and(|given| (min..=max).contains(&given));
                if fits { Ok(()) } else { Err(format!("{name} must be {min} to {max}")) }
            }
            (QueueKind::Number { min, max, .. }, _) => Err(format!("{name} must be a whole number, {min} to {max}")),
            (QueueKind::Strategy(_), FieldValue::Text(word)) if Strategy::parse(word).is_some() => Ok(()),
            (QueueKind::Strategy(_), _) => Err(format!("{name} must be client_wins, server_wins, merge or manual")),
        }
    }
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self::read(|_| None)
    }
}

impl QueueConfig {
    /// Reads the config; what has no value, or one that can't be used, is as by default.
    #[must_use]
    pub fn read(value: impl Fn(&str) -> Option<FieldValue>) -> Self {
        let of = |name: &str| {
            let field = QueueField::named(name)?;
            value(name).filter(|value| field.check(value).is_ok())
        };
        let flag = |name: &str| match (of(name), QueueField::named(name).map(|field| field.kind)) {
            (Some(FieldValue::Bool(yes)), _) | (_, Some(QueueKind::Flag(yes))) => yes,
            (_, _) => false,
        };
        let number = |name: &str| match (of(name), QueueField::named(name).map(|field| field.kind)) {
            (Some(FieldValue::Int(number)), _) => u64::try_from(number).unwrap_or_default(),
            (_, Some(QueueKind::Number { default, .. })) => default,
            (_, _) => 0,
        };
        let strategy = |name: &str| match of(name) {
            Some(FieldValue::Text(word)) => Strategy::parse(&word),
            Some(FieldValue::Bool(_) | FieldValue::Int(_)) | None => None,
        };
        let permissions = ["sales", "expenses", "records", "payments", "stock_adjustment", "custom"];
        let types = OPERATION_TYPES.into_iter().chain(["custom"]);
        let refused = types.zip(permissions).filter(|(_, plural)| !flag(&format!("allow_{plural}_offline")));
        let strategies = OPERATION_TYPES
            .into_iter()
            .filter_map(|kind| Some((kind, strategy(&format!("{kind}_conflict_strategy"))?)));
        Self {
            offline_mode_enabled: flag("offline_mode_enabled"),
            auto_sync_enabled: flag("auto_sync_enabled"),
            sync_interval_minutes: number("sync_interval_minutes"),
            max_retries: number("max_retries"),
            refused_offline: refused.map(|(kind, _)| kind).collect(),
            max_queue_size: number("max_queue_size"),
            default_conflict_strategy: strategy("default_conflict_strategy").unwrap_or(Strategy::Merge),
            strategies: strategies.collect(),
            synced_expire_days: number("synced_expire_days"),
            delta_sync: flag("delta_sync"),
            send_corrections: flag("send_corrections"),
            compress: flag("compress"),
            wifi_only: flag("wifi_only"),
            data_budget_mb_per_day: number("data_budget_mb_per_day"),
            off_peak_start_minute: number("off_peak_start_minute"),
            off_peak_end_minute: number("off_peak_end_minute"),
        }
    }

    /// Who wins for a type of operation.
    #[must_use]
    pub fn strategy_for(&self, operation_type: &str) -> Strategy {
        let own = self.strategies.iter().find(|(kind, _)| *kind == operation_type);
        own.map_or(self.default_conflict_strategy, |(_, strategy)| *strategy)
    }

    /// Whether an operation of a type may be recorded while no relay is connected.
    #[must_use]
    pub fn allows_offline(&self, operation_type: &str) -> bool {
        let kind = OPERATION_TYPES.iter().find(|kind| **kind == operation_type).copied().unwrap_or("custom");
        !self.refused_offline.contains(&kind)
    }

    /// The edit that sets a field, or takes it away.
    #[must_use]
    pub fn edit(field: &str, value: Option<FieldValue>) -> (DocumentId, FieldEdit) {
        let edit = FieldEdit { record: DocumentId::settings_record(), field: field.to_owned(), value };
        (DocumentId::Settings, edit)
    }
}

impl Shop {
    /// How the business wants its queue.
    #[must_use]
    pub fn queue_config(&self) -> QueueConfig {
        let document = self.document(DocumentId::Settings);
        QueueConfig::read(|name| document?.field(DocumentId::settings_record(), name))
    }

    /// The relay that sends operations to the shop's own server; `None` while nobody is named, or
    /// two are at once.
    #[must_use]
    pub fn upstream_relay(&self) -> Option<DeviceId> {
        let document = self.document(DocumentId::Settings)?;
        let record = DocumentId::settings_record();
        if document.conflicted(&field_key(record, UPSTREAM_RELAY)) {
            return None;
        }
        match document.field(record, UPSTREAM_RELAY)? {
            FieldValue::Text(text) => text.parse().ok(),
            FieldValue::Int(_) | FieldValue::Bool(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_said_is_as_the_older_design_had_it() {
        let config = QueueConfig::default();
        assert!(config.offline_mode_enabled && config.auto_sync_enabled && !config.wifi_only);
        assert_eq!((config.sync_interval_minutes, config.max_retries, config.max_queue_size), (5, 3, 500));
        assert_eq!(config.strategy_for("sale"), Strategy::Merge);
        assert!(OPERATION_TYPES.iter().all(|kind| config.allows_offline(kind)) && config.allows_offline("loyalty"));
    }

    #[test]
    fn values_are_read_and_those_that_cannot_be_used_are_not() {
        let config = QueueConfig::read(|name| {
            Some(match name {
                "max_retries" => FieldValue::Int(7),
                "max_queue_size" => FieldValue::Int(-1),
                "allow_expenses_offline" | "allow_custom_offline" => FieldValue::Bool(false),
                "sale_conflict_strategy" => FieldValue::Text("client_wins".to_owned()),
                "default_conflict_strategy" => FieldValue::Text("whoever".to_owned()),
                _ => return None,
            })
        });
        assert_eq!((config.max_retries, config.max_queue_size), (7, 500));
        assert!(
            config.allows_offline("sale") && !config.allows_offline("expense") && !config.allows_offline("loyalty")
        );
        assert_eq!(config.strategy_for("sale"), Strategy::ClientWins);
        assert_eq!(config.strategy_for("expense"), Strategy::Merge);
    }

    #[test]
    fn every_field_says_what_would_do() {
        for field in QUEUE_FIELDS {
            let wrong = FieldValue::Text("x".to_owned());
            let error = field.check(&wrong).unwrap_err();
            assert!(error.starts_with(field.name), "{error}");
        }
        let retries = QueueField::named("max_retries").unwrap();
        assert_eq!(retries.check(&FieldValue::Int(0)), Err("max_retries must be 1 to 100".to_owned()));
        assert_eq!(QueueField::named("max_retrys"), None);
    }
}
