//! How a node is set up: the config file, over which the environment and then flags go.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use transport::bluetooth::BluetoothBudget;

use crate::node::DEFAULT_LISTEN;

/// The config file of a data folder.
pub const CONFIG_FILE: &str = "config.toml";

/// How a node is set up.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the HTTP API listens: a port that no common service uses, on this machine only,
    /// because whoever reaches the API can sell.
    pub api: SocketAddr,
    /// Multiaddrs that links listen on: QUIC, which crosses more home routers, and TCP, which
    /// works where UDP is blocked.
    pub listen: Vec<String>,
    /// Multiaddrs of other devices: none, because those nearby are found by multicast.
    pub peers: Vec<String>,
    /// Whether to find devices by multicast; if not set, unless all of `listen` is loopback,
    /// where nobody else could answer.
    pub mdns: Option<bool>,
    /// Bluetooth: `auto` uses any adapter there is, and goes on without if there is none; a name
    /// such as `hci1` or an address uses that one; `off` uses none. If not set, `auto`, because
    /// devices that are near should find each other without anybody setting up anything, unless
    /// all of `listen` is loopback, which says that the node is to keep to itself.
    pub bluetooth: Option<BluetoothChoice>,
    /// Whether Bluetooth opens L2CAP channels where both sides can: they are faster. Switch it
    /// off where a controller's channels are broken.
    pub bluetooth_l2cap: bool,
    /// Bluetooth links at most: phones carry 6 or 7 connections, and one or two are left for a
    /// headset or a receipt printer.
    pub bluetooth_links_max: usize,
    /// How long one search lasts: devices that save power advertise about once a second.
    pub bluetooth_scan_seconds: u64,
    /// How long it does not search after that: searching a third of the time spares the battery,
    /// and devices still meet within half a minute.
    pub bluetooth_pause_seconds: u64,
    /// Where the restore marker is; in the data folder if not set. Where backups take in the
    /// whole folder, put it somewhere they don't.
    pub marker: Option<PathBuf>,
    /// The M-PESA credentials file of a relay: without one, a relay only stores.
    pub mpesa: Option<PathBuf>,
    /// The upstream file: how to reach the shop's own server, if it has one.
    pub upstream: Option<PathBuf>,
    /// Where a relay's payment callbacks arrive: apart from the API, because the provider has
    /// to reach it.
    pub callbacks: SocketAddr,
    /// Where the provider finds the callback listener; the credentials file's if not set.
    pub callback_base_url: Option<String>,
    /// After how many minutes a payment that was never asked for waits for the till's word that
    /// the customer is still there: half an hour, as people leave the shop by then.
    pub stale_intent_minutes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            api: SocketAddr::from((Ipv4Addr::LOCALHOST, 7470)),
            listen: DEFAULT_LISTEN.map(str::to_owned).to_vec(),
            peers: Vec::new(),
            mdns: None,
            bluetooth: None,
            bluetooth_l2cap: true,
            bluetooth_links_max: 5,
            bluetooth_scan_seconds: 4,
            bluetooth_pause_seconds: 8,
            marker: None,
            mpesa: None,
            upstream: None,
            callbacks: SocketAddr::from((Ipv4Addr::LOCALHOST, 7472)),
            callback_base_url: None,
            stale_intent_minutes: 30,
        }
    }
}

/// Which Bluetooth adapter to use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum BluetoothChoice {
    /// None.
    Off,
    /// Any, if there is one.
    Auto,
    /// The one with this name or address.
    Adapter(String),
}

impl std::str::FromStr for BluetoothChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            "" => Err("name an adapter, such as hci0 or 00:11:22:33:44:55, or say auto or off".to_owned()),
            adapter => Ok(Self::Adapter(adapter.to_owned())),
        }
    }
}

impl TryFrom<String> for BluetoothChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// A config file that can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read.
    #[error("the config file {} can't be read ({source}): check its path and permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is too large to be one.
    #[error("the config file {} is larger than {CONFIG_BYTES_MAX} bytes: check its path", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A key is unknown, or has a value that can't be used.
    #[error("the config file {} can't be used: {problem}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, the key and what would do.
        problem: String,
    },
}

impl Config {
    /// Reads a config file. Relative paths in it are relative to the file's folder.
    ///
    /// # Errors
    /// [`ConfigError`]; unknown keys are refused.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLarge { path: path.to_owned() });
        }
        let mut config: Self = toml::from_str(&text).map_err(|error| ConfigError::Wrong {
            path: path.to_owned(),
            problem: error.to_string().trim_end().to_owned(),
        })?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        for file in [&mut config.marker, &mut config.mpesa, &mut config.upstream].into_iter().flatten() {
            *file = folder.join(&*file);
        }
        Ok(config)
    }

    /// Which Bluetooth adapter to use.
    #[must_use]
    pub fn bluetooth_choice(&self) -> BluetoothChoice {
        let alone = !self.listen.is_empty() && self.listen.iter().all(|address| is_loopback(address));
        let default = if alone { BluetoothChoice::Off } else { BluetoothChoice::Auto };
        self.bluetooth.clone().unwrap_or(default)
    }

    /// What the radio may be used for.
    #[must_use]
    pub fn bluetooth_budget(&self) -> BluetoothBudget {
        BluetoothBudget {
            links_max: self.bluetooth_links_max,
            scan: Duration::from_secs(self.bluetooth_scan_seconds.clamp(1, BLUETOOTH_SECONDS_MAX)),
            pause: Duration::from_secs(self.bluetooth_pause_seconds.min(BLUETOOTH_SECONDS_MAX)),
        }
    }

    /// Whether to find devices by multicast.
    #[must_use]
    pub fn finds_by_multicast(&self) -> bool {
        self.mdns.unwrap_or_else(|| !self.listen.iter().all(|address| is_loopback(address)))
    }
}

/// Whether a multiaddr is this machine's own.
pub(crate) fn is_loopback(multiaddr: &str) -> bool {
    multiaddr.starts_with("/ip4/127.") || multiaddr.starts_with("/ip6/::1/")
}

/// Longer than an hour, a search or a pause is a mistake.
const BLUETOOTH_SECONDS_MAX: u64 = 3_600;
const CONFIG_BYTES_MAX: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CONFIG_FILE);
        std::fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        assert_eq!(load("").unwrap(), Config::default());
    }

    #[test]
    fn each_key_is_read() {
        let config = load(
            "api = '127.0.0.1:1'\nlisten = ['/ip4/127.0.0.1/tcp/0']\npeers = ['/ip4/10.0.0.1/tcp/7471']\n\
             mdns = true\nmarker = '/m'\nmpesa = 'mpesa.toml'\ncallbacks = '127.0.0.1:2'\n\
             callback_base_url = 'https://shop.example'\nstale_intent_minutes = 5\n\
             bluetooth = 'hci1'\nbluetooth_l2cap = false\nbluetooth_links_max = 2\n\
             bluetooth_scan_seconds = 3\nbluetooth_pause_seconds = 0",
        )
        .unwrap();
        assert_eq!(config.api.port(), 1);
        assert!(config.finds_by_multicast());
        assert_eq!(config.marker, Some(PathBuf::from("/m")));
        assert!(config.mpesa.as_ref().unwrap().is_absolute(), "relative to the file's folder");
        assert_eq!(config.stale_intent_minutes, 5);
        assert_eq!(config.bluetooth_choice(), BluetoothChoice::Adapter("hci1".to_owned()));
        assert!(!config.bluetooth_l2cap);
        let budget = config.bluetooth_budget();
        assert_eq!((budget.links_max, budget.scan, budget.pause), (2, Duration::from_secs(3), Duration::ZERO));
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_named() {
        for (text, named) in
            [("apl = 1", "apl"), ("api = 'here'", "api"), ("mdns = 1", "mdns"), ("stale_intent_minutes = -1", "-1")]
        {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(named) && error.contains(CONFIG_FILE), "{error}");
        }
        let large = load(&"#".repeat(70_000)).unwrap_err();
        assert!(matches!(large, ConfigError::TooLarge { .. }));
        assert!(matches!(Config::load(Path::new("/nowhere/config.toml")), Err(ConfigError::Unreadable { .. })));
    }

    #[test]
    fn bluetooth_is_on_unless_the_node_keeps_to_itself() {
        let choice = |text: &str| load(text).unwrap().bluetooth_choice();
        assert_eq!(choice(""), BluetoothChoice::Auto);
        assert_eq!(choice("listen = []"), BluetoothChoice::Auto);
        assert_eq!(choice("listen = ['/ip4/127.0.0.1/tcp/0']"), BluetoothChoice::Off);
        assert_eq!(choice("listen = ['/ip4/127.0.0.1/tcp/0']\nbluetooth = 'auto'"), BluetoothChoice::Auto);
        assert_eq!(choice("bluetooth = 'off'"), BluetoothChoice::Off);
        assert!(load("bluetooth = ''").unwrap_err().to_string().contains("adapter"));
    }

    #[test]
    fn multicast_is_off_where_nobody_could_answer() {
        let listening = |listen: &[&str], mdns| Config {
            listen: listen.iter().map(ToString::to_string).collect(),
            mdns,
            ..Config::default()
        };
        assert!(Config::default().finds_by_multicast());
        assert!(!listening(&["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"], None).finds_by_multicast());
        assert!(listening(&["/ip4/127.0.0.1/tcp/0", "/ip4/0.0.0.0/tcp/0"], None).finds_by_multicast());
        assert!(!listening(&["/ip4/0.0.0.0/tcp/0"], Some(false)).finds_by_multicast());
    }
}
