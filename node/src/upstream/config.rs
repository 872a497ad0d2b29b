//! The upstream file: how to reach the shop's own server. TOML, unknown keys refused, secrets never
//! shown.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::{Deserialize, Deserializer};

use super::guard::{Allowed, refused_base};

/// How to reach the shop's own server.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// Where it is, with a path that goes before every other, if any.
    #[serde(deserialize_with = "url")]
    pub base_url: Url,
    /// What lets the carrier in. Secret.
    #[serde(default)]
    pub bearer_token: Option<String>,
    /// Paths by type of operation, where they are not tillmesh's own: `sale = "/v2/orders"`.
    #[serde(default)]
    pub paths: BTreeMap<String, String>,
    /// What the paths of the app's own operations begin with: `/api/`, as most servers have it.
    #[serde(default = "default_allowed_paths")]
    pub allowed_paths: Vec<String>,
    /// Whether the server may be in a private network: no, because a name that suddenly leads
    /// there is how servers are tricked.
    #[serde(default)]
    pub allow_private: bool,
    /// Whether it may be this machine: no, for the same reason.
    #[serde(default)]
    pub allow_loopback: bool,
    /// Whether it takes a second call under one `Idempotency-Key` as the first one. If not, one call
    /// is made at a time, so that a crash leaves one in doubt at most.
    #[serde(default = "default_true")]
    pub honours_key: bool,
    /// Calls at the same time: 4, which a small server bears.
    #[serde(default = "default_calls_max")]
    pub calls_max: usize,
    /// How long a call may take.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// How long making a connection may take.
    #[serde(default = "default_connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// The pause after a first failure; it doubles.
    #[serde(default = "default_backoff_base_ms")]
    pub backoff_base_ms: u64,
    /// The longest pause: five minutes, so that a server that is back is noticed soon.
    #[serde(default = "default_backoff_cap_ms")]
    pub backoff_cap_ms: u64,
    /// After how many failures in a row the server is left alone.
    #[serde(default = "default_breaker_after")]
    pub breaker_after: u32,
    /// How long nothing new may have come before a relay names itself as the carrier.
    #[serde(default = "default_claim_quiet_ms")]
    pub claim_quiet_ms: u64,
}

/// An upstream file that can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamConfigError {
    /// The file can't be read.
    #[error("the upstream file {} can't be read ({source}): check its path and permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is too large to be one, a key is unknown, or a value can't be used.
    #[error("the upstream file {} can't be used: {problem}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The key, and what would do.
        problem: String,
    },
}

impl UpstreamConfig {
    /// With everything as by default.
    #[must_use]
    pub fn new(base_url: Url) -> Self {
        Self {
            base_url,
            bearer_token: None,
            paths: BTreeMap::new(),
            allowed_paths: default_allowed_paths(),
            allow_private: false,
            allow_loopback: false,
            honours_key: true,
            calls_max: default_calls_max(),
            timeout_ms: default_timeout_ms(),
            connect_timeout_ms: default_connect_timeout_ms(),
            backoff_base_ms: default_backoff_base_ms(),
            backoff_cap_ms: default_backoff_cap_ms(),
            breaker_after: default_breaker_after(),
            claim_quiet_ms: default_claim_quiet_ms(),
        }
    }

    /// Reads an upstream file.
    ///
    /// # Errors
    /// [`UpstreamConfigError`].
    pub fn load(path: &Path) -> Result<Self, UpstreamConfigError> {
        let unreadable = |source| UpstreamConfigError::Unreadable { path: path.to_owned(), source };
        let wrong = |problem: String| UpstreamConfigError::Wrong { path: path.to_owned(), problem };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(wrong(format!("it is larger than {FILE_BYTES_MAX} bytes")));
        }
        // An error of the whole text would show the token.
        let config: Self = toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
        config.check().map_err(wrong)?;
        Ok(config)
    }

    /// Checks what can be checked before anything is sent.
    ///
    /// # Errors
    /// What is wrong, and what would do.
    pub fn check(&self) -> Result<(), String> {
        if let Some(refused) = refused_base(&self.base_url, self.allowed()) {
            return Err(refused);
        }
        if self.base_url.query().is_some() || self.base_url.fragment().is_some() {
            return Err("base_url must have no query and no fragment".to_owned());
        }
        let paths = self.paths.values().chain(&self.allowed_paths);
        if let Some(path) = paths.into_iter().find(|path| !path.starts_with('/') || path.starts_with("//")) {
            return Err(format!("the path {path} must begin with one slash"));
        }
        let known: Vec<&str> = crdt_model::shop::OPERATION_TYPES.into_iter().chain(["product", "customer"]).collect();
        if let Some(kind) = self.paths.keys().find(|kind| !known.contains(&kind.as_str())) {
            return Err(format!("paths.{kind} is no type of operation: use {}", known.join(", ")));
        }
        if self.connect_timeout_ms == 0 || self.timeout_ms < self.connect_timeout_ms {
            return Err("timeout_ms must be at least connect_timeout_ms, and both more than 0".to_owned());
        }
        if !(1..=CALLS_MAX).contains(&self.calls_max) {
            return Err(format!("calls_max must be 1 to {CALLS_MAX}"));
        }
        Ok(())
    }

    /// Which addresses may be spoken to.
    #[must_use]
    pub fn allowed(&self) -> Allowed {
        Allowed { private: self.allow_private, loopback: self.allow_loopback }
    }
}

impl fmt::Debug for UpstreamConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamConfig").field("host", &self.base_url.host_str()).finish_non_exhaustive()
    }
}

fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    let url = Url::parse(&text).map_err(|_| serde::de::Error::custom("base_url is no address"))?;
    match url.host_str() {
        Some(_) if url.username().is_empty() && url.password().is_none() => Ok(url),
        _ => Err(serde::de::Error::custom("base_url must have a host, and no user name or password")),
    }
}

const FILE_BYTES_MAX: u64 = 64 * 1024;
const CALLS_MAX: usize = 64;

fn default_allowed_paths() -> Vec<String> {
    vec!["/api/".to_owned()]
}

const fn default_true() -> bool {
    true
}

const fn default_calls_max() -> usize {
    4
}

const fn default_timeout_ms() -> u64 {
    30_000
}

const fn default_connect_timeout_ms() -> u64 {
    10_000
}

const fn default_backoff_base_ms() -> u64 {
    1_000
}

const fn default_backoff_cap_ms() -> u64 {
    5 * 60_000
}

const fn default_breaker_after() -> u32 {
    5
}

const fn default_claim_quiet_ms() -> u64 {
    2_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<UpstreamConfig, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upstream.toml");
        std::fs::write(&path, text).unwrap();
        UpstreamConfig::load(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_is_read_and_its_token_is_never_shown() {
        let config = load("base_url = 'https://shop.example/v1'\nbearer_token = 'secret'\n[paths]\nsale = '/orders'");
        let config = config.unwrap();
        assert_eq!(config.paths["sale"], "/orders");
        assert!(!format!("{config:?}").contains("secret"));
        let error = load("base_url = 'https://shop.example'\nbearer_token = 'secret'\nbearer = 1").unwrap_err();
        assert!(error.contains("bearer") && !error.contains("secret'"), "{error}");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (more, named) in [
            ("base_url = 'http://shop.example'", "https"),
            ("base_url = 'https://10.0.0.1'", "10.0.0.1"),
            ("base_url = 'https://u:p@shop.example'", "user name"),
            ("base_url = 'https://shop.example'\n[paths]\nsales = '/x'", "paths.sales"),
            ("base_url = 'https://shop.example'\nallowed_paths = ['x']", "slash"),
            ("base_url = 'https://shop.example'\ncalls_max = 0", "calls_max"),
        ] {
            let error = load(more).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
