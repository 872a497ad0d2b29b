//! The M-PESA credentials file: TOML, unknown keys refused, secrets never shown.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::super::http;
use super::super::phone::Phone;
use super::join;

pub(in super::super) const TOKEN_PATH: &str = "/oauth/v1/generate";
pub(in super::super) const STK_PUSH_PATH: &str = "/mpesa/stkpush/v1/processrequest";
pub(in super::super) const STK_QUERY_PATH: &str = "/mpesa/stkpushquery/v1/query";
pub(in super::super) const STATUS_PATH: &str = "/mpesa/transactionstatus/v1/query";
pub(in super::super) const REVERSAL_PATH: &str = "/mpesa/reversal/v1/request";
pub(in super::super) const C2B_REGISTER_PATH: &str = "/mpesa/c2b/v2/registerurl";
pub(in super::super) const PULL_REGISTER_PATH: &str = "/pulltransactions/v1/register";
pub(in super::super) const PULL_QUERY_PATH: &str = "/pulltransactions/v1/query";

/// What kind of account the shop has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum TransactionType {
    /// A paybill number.
    #[serde(rename = "CustomerPayBillOnline")]
    PayBill,
    /// A till number (buy goods).
    #[serde(rename = "CustomerBuyGoodsOnline")]
    BuyGoods,
}

impl TransactionType {
    /// The protocol's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PayBill => "CustomerPayBillOnline",
            Self::BuyGoods => "CustomerBuyGoodsOnline",
        }
    }
}

/// How to reach M-PESA as one shop.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MpesaConfig {
    /// From the provider's developer portal.
    pub consumer_key: String,
    /// From the provider's developer portal. Secret.
    pub consumer_secret: String,
    /// From the provider, for this shortcode. Secret.
    pub passkey: String,
    /// The paybill number, or the store number of a till.
    pub shortcode: String,
    /// The till number that is paid, for buy goods; without it, the shortcode.
    #[serde(default)]
    pub till_number: Option<String>,
    /// Paybill, unless told otherwise.
    #[serde(default = "default_transaction_type")]
    pub transaction_type: TransactionType,
    /// The provider, or the simulator.
    #[serde(deserialize_with = "url")]
    pub base_url: Url,
    /// Where the provider finds our callback listener.
    #[serde(deserialize_with = "url")]
    pub callback_base_url: Url,
    /// How long a whole request may take, in milliseconds.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// How long making a connection may take, in milliseconds. Below `timeout_ms`, so that a
    /// connection that is never made is told from an answer that never comes.
    #[serde(default = "default_connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// Whether the provider's list of recent transactions may be asked for: the shop has to be
    /// allowed to. A till has no reference in it, so nothing is proven absent there.
    #[serde(default)]
    pub pull: bool,
    /// The phone number that the shop registered for that list.
    #[serde(default)]
    pub pull_phone: Option<String>,
    /// Who asks for reversals and transaction states, from the organisation portal.
    #[serde(default)]
    pub initiator: Option<String>,
    /// The initiator's password, encrypted for the provider, from the developer portal. Secret.
    #[serde(default)]
    pub security_credential: Option<String>,
}

/// A credentials file that can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read.
    #[error("the M-PESA credentials file {} can't be read: check its path and permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no credentials file.
    #[error("the M-PESA credentials file is larger than {CONFIG_BYTES_MAX} bytes: check its path")]
    TooLarge,
    /// Not TOML with the right keys.
    #[error("the M-PESA credentials file can't be used{}: {problem}", at_line(*.line))]
    Syntax {
        /// The line, from 1, when known.
        line: Option<usize>,
        /// The key and the problem, without the file's text.
        problem: String,
    },
    /// A key's value is wrong.
    #[error("{key}: {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// What would do.
        problem: String,
    },
}

fn at_line(line: Option<usize>) -> String {
    line.map(|line| format!(" (line {line})")).unwrap_or_default()
}

impl MpesaConfig {
    /// Reads and checks a credentials file; warns when others on the machine can read it.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        warn_if_exposed(&file, path);
        let mut text = String::new();
        file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLarge);
        }
        Self::from_toml(&text)
    }

    /// Reads and checks the text of a credentials file.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] and [`ConfigError::Value`], naming the key.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| syntax_error(text, &error))?;
        config.check()?;
        Ok(config)
    }

    /// Checks each value.
    ///
    /// # Errors
    /// [`ConfigError::Value`], naming the key.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (key, text) in [
            ("consumer_key", &self.consumer_key),
            ("consumer_secret", &self.consumer_secret),
            ("passkey", &self.passkey),
        ] {
            check_secret(key, text)?;
        }
        for (key, text) in [("initiator", &self.initiator), ("security_credential", &self.security_credential)] {
            text.as_ref().map_or(Ok(()), |text| check_secret(key, text))?;
        }
        if let Some(phone) = &self.pull_phone {
            phone
                .parse::<Phone>()
                .map_err(|error| ConfigError::Value { key: "pull_phone", problem: error.to_string() })?;
        }
        check_number("shortcode", &self.shortcode)?;
        if let Some(till_number) = &self.till_number {
            check_number("till_number", till_number)?;
        }
        if self.till_number.is_some() && self.transaction_type == TransactionType::PayBill {
            return wrong("till_number", "only CustomerBuyGoodsOnline has one: remove it");
        }
        check_url("base_url", &self.base_url)?;
        check_url("callback_base_url", &self.callback_base_url)?;
        if let Some(word) = http::refused_word(self.callback_base_url.as_str()) {
            let problem = format!("M-PESA refuses callback URLs that contain {word:?}");
            return wrong("callback_base_url", &problem);
        }
        if !(1..=TIMEOUT_MS_MAX).contains(&self.timeout_ms) {
            return wrong("timeout_ms", &format!("choose 1 to {TIMEOUT_MS_MAX}"));
        }
        if !(1..=self.timeout_ms).contains(&self.connect_timeout_ms) {
            return wrong("connect_timeout_ms", "choose at least 1 and at most timeout_ms");
        }
        Ok(())
    }

    pub(super) fn endpoint(&self, path: &str) -> String {
        join(&self.base_url, path)
    }

    pub(super) fn callback_url(&self, path: &str) -> String {
        join(&self.callback_base_url, path)
    }
}

impl fmt::Debug for MpesaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MpesaConfig")
            .field("shortcode", &self.shortcode)
            .field("till_number", &self.till_number)
            .field("transaction_type", &self.transaction_type)
            .field("base_url", &self.base_url.as_str())
            .field("callback_base_url", &self.callback_base_url.as_str())
            .field("timeout_ms", &self.timeout_ms)
            .field("connect_timeout_ms", &self.connect_timeout_ms)
            .finish_non_exhaustive()
    }
}

const CONFIG_BYTES_MAX: u64 = 64 * 1024;
const SECRET_BYTES_MAX: usize = 1024;
const TIMEOUT_MS_MAX: u64 = 300_000;

fn default_transaction_type() -> TransactionType {
    TransactionType::PayBill
}

/// The provider answers within a few seconds; beyond half a minute the callback is first.
fn default_timeout_ms() -> u64 {
    30_000
}

/// Slow mobile uplinks need a few seconds for TLS.
fn default_connect_timeout_ms() -> u64 {
    10_000
}

fn wrong<T>(key: &'static str, problem: &str) -> Result<T, ConfigError> {
    Err(ConfigError::Value { key, problem: problem.to_owned() })
}

fn check_secret(key: &'static str, text: &str) -> Result<(), ConfigError> {
    if text.is_empty() || text.len() > SECRET_BYTES_MAX || !text.bytes().all(is_graphic) {
        return wrong(key, "copy it from the developer portal, without spaces");
    }
    Ok(())
}

fn check_number(key: &'static str, text: &str) -> Result<(), ConfigError> {
    if !(5..=10).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return wrong(key, "write its 5 to 10 digits, in quotes");
    }
    Ok(())
}

fn check_url(key: &'static str, url: &Url) -> Result<(), ConfigError> {
    if !http::is_allowed(url) {
        return wrong(key, "use https; plain http is for this machine's own addresses only");
    }
    let bare = url.username().is_empty() && url.password().is_none();
    if !bare || url.query().is_some() || url.fragment().is_some() {
        return wrong(key, "leave out user, password, query and fragment");
    }
    Ok(())
}

fn is_graphic(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    Url::parse(&text).map_err(|_| D::Error::custom("expected an address such as https://host/path"))
}

/// Names the line, its key and what was expected. Nothing to the right of an `=` is repeated,
/// since it may be a secret.
fn syntax_error(text: &str, error: &toml::de::Error) -> ConfigError {
    let line = error.span().map(|span| line_of(text, span.start));
    let key = line
        .and_then(|line| text.lines().nth(line.saturating_sub(1)))
        .and_then(|line| line.split_once('='))
        .map(|(key, _)| key.trim())
        .filter(|key| key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
    let message = error.message();
    let expected = match message.find("expected") {
        Some(at) if message.starts_with("invalid ") => message.get(at..).unwrap_or_default(),
        _ => message,
    };
    let problem = match key {
        Some(key) => format!("{key}: {expected}"),
        None => expected.to_owned(),
    };
    ConfigError::Syntax { line, problem }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1
}

#[cfg(unix)]
fn warn_if_exposed(file: &std::fs::File, path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let exposed = file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0);
    if exposed {
        tracing::warn!(path = %path.display(), "others can read the credentials file: chmod 600 it");
    }
}

#[cfg(not(unix))]
fn warn_if_exposed(_file: &std::fs::File, _path: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
consumer_key = "key"
consumer_secret = "hush"
passkey = "hush-too"
shortcode = "174379"
base_url = "https://sandbox.safaricom.co.ke"
callback_base_url = "https://shop.example/pay"
"#;

    #[test]
    fn a_good_file_is_read_and_its_secrets_are_not_shown() {
        let config = MpesaConfig::from_toml(GOOD).unwrap();
        assert_eq!(config.transaction_type, TransactionType::PayBill);
        assert_eq!(config.endpoint(STK_PUSH_PATH), "https://sandbox.safaricom.co.ke/mpesa/stkpush/v1/processrequest");
        assert_eq!(config.callback_url("/callbacks/x"), "https://shop.example/pay/callbacks/x");
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[test]
    fn each_wrong_value_is_named_and_no_secret_is_quoted() {
        for (from, to, key) in [
            ("\"key\"", "\"\"", "consumer_key"),
            ("\"hush\"", "\"hush hush\"", "consumer_secret"),
            ("\"hush-too\"", "\"\"", "passkey"),
            ("174379", "17-43", "shortcode"),
            ("https://sandbox", "http://sandbox", "base_url"),
            ("https://shop.example/pay", "http://shop.example/pay", "callback_base_url"),
            ("https://shop.example/pay", "https://shop.example/mpesa", "callback_base_url"),
            ("https://shop.example/pay", "https://executor.example/", "callback_base_url"),
            ("https://shop.example/pay", "https://u:p@shop.example/", "callback_base_url"),
            ("https://shop.example/pay", "https://shop.example/?a=1", "callback_base_url"),
            ("shortcode =", "timeout_ms = 0\nshortcode =", "timeout_ms"),
            ("shortcode =", "timeout_ms = 5\nshortcode =", "connect_timeout_ms"),
            ("shortcode =", "till_number = \"123456\"\nshortcode =", "till_number"),
            ("shortcode =", "shortkode = 1\nshortcode =", "shortkode"),
            ("passkey = \"hush-too\"", "", "passkey"),
            ("shortcode = \"174379\"", "shortcode = 174379", "(line 5): shortcode"),
            ("https://sandbox.safaricom.co.ke", "sandbox", "base_url"),
            ("shortcode =", "timeout_ms = \"hush\"\nshortcode =", "timeout_ms"),
            ("\"hush\"", "\"hush", "line 3"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            let error = MpesaConfig::from_toml(&text).unwrap_err().to_string();
            assert!(error.contains(key), "{to}: {error}");
            assert!(!error.contains("hush"), "{to}: {error}");
        }
    }

    #[test]
    fn a_missing_or_oversized_file_is_a_clear_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials.toml");
        assert!(MpesaConfig::load(&path).unwrap_err().to_string().contains("credentials.toml"));
        std::fs::write(&path, "#".repeat(70_000)).unwrap();
        assert!(matches!(MpesaConfig::load(&path), Err(ConfigError::TooLarge)));
        std::fs::write(&path, GOOD).unwrap();
        assert_eq!(MpesaConfig::load(&path).unwrap().shortcode, "174379");
    }
}
