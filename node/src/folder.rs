//! The data folder: the storage file, the restore marker, who this device is, and, while a node
//! runs on it, where that node listens.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crdt_model::ids::{DeviceId, OwnerKey};
use crdt_model::money::Currency;
use crdt_model::record::{Certificate, CertificateError, DEVICE_NAME_BYTES_MAX, Genesis, Role};
use crdt_model::shop::Identity;
use crdt_model::time::Timestamp;
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use crate::storage::{
    Batch, Continuity, Durability, MarkerError, OpenError, RedbStorage, RestoreMarker, Rows, Storage, StorageError,
};

const STORAGE_FILE: &str = "shop.redb";
/// A storage file that is not whole yet.
const FRESH_FILE: &str = "shop.redb.new";
const MARKER_FILE: &str = "restore-marker";
const RUNNING_FILE: &str = "running.json";

const GENESIS: &[u8] = b"genesis";
const CERTIFICATE: &[u8] = b"certificate";
const DEVICE_KEY: &[u8] = b"device-key";
const OWNER_KEY: &[u8] = b"owner-key";
const DISCOVERY_SECRET: &[u8] = b"discovery-secret";
const INTRODUCERS: &[u8] = b"introducers";

/// The longest name of a business.
const BUSINESS_NAME_BYTES_MAX: usize = 128;

/// Why a data folder can't be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// There is a business in it already.
    #[error("{} holds a business already: choose another folder with --data", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// The storage file.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The restore marker.
    #[error(transparent)]
    Marker(#[from] MarkerError),
    /// The folder can't be made or written.
    #[error("{} can't be used ({source}): check that it can be written, or choose another folder with --data", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Something that a folder must hold is missing or damaged.
    #[error("{} is not a whole data folder ({what} is missing or damaged): join the business again in a new folder", path.display())]
    Incomplete {
        /// The folder.
        path: PathBuf,
        /// What.
        what: &'static str,
    },
    /// A name is wrong.
    #[error("the {what} must have 1 to {limit} bytes")]
    Name {
        /// Which name.
        what: &'static str,
        /// Its limit.
        limit: usize,
    },
    /// The system gives no randomness.
    #[error("the system gives no randomness ({0}): try again")]
    Randomness(#[from] getrandom::Error),
    /// The certificate is not valid.
    #[error("this device's certificate is not valid: {0}")]
    Certificate(#[from] CertificateError),
}

/// A data folder, opened; no other process can use it until the storage is dropped.
#[derive(Debug)]
pub struct OpenFolder {
    /// The storage.
    pub storage: RedbStorage,
    /// Who this device is.
    pub identity: Identity,
    /// The owner's key, on the device that made the business.
    pub owner: Option<SigningKey>,
    /// By which devices of the business recognise each other nearby.
    pub discovery_secret: [u8; 32],
    /// Addresses of the device that let this one in.
    pub introducers: Vec<String>,
    /// Whether the folder is the one that was used last, or a copy.
    pub continuity: Continuity,
    /// To be bound to the folder once a copy has begun its own epoch.
    pub marker: RestoreMarker,
}

/// What founding a business gives.
#[derive(Debug)]
pub struct Founded {
    /// The business.
    pub genesis: Genesis,
    /// The first device.
    pub device: DeviceId,
    /// 24 words that can enrol a new owner; shown once, kept nowhere.
    pub recovery_phrase: String,
}

/// What a device gets when it joins.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    pub(crate) genesis: Genesis,
    pub(crate) certificate: Certificate,
    pub(crate) discovery_secret: [u8; 32],
    pub(crate) introducers: Vec<String>,
}

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { path, source }
}

/// Whether a folder holds a business already.
#[must_use]
pub fn is_taken(folder: &Path) -> bool {
    folder.join(STORAGE_FILE).exists()
}

/// Makes a business, and this device its first member.
///
/// # Errors
/// [`FolderError`]; nothing is left half made.
pub fn found(
    folder: &Path,
    name: &str,
    currency: Currency,
    utc_offset_minutes: i32,
    device_name: &str,
    at: Timestamp,
) -> Result<Founded, FolderError> {
    if name.is_empty() || name.len() > BUSINESS_NAME_BYTES_MAX {
        return Err(FolderError::Name { what: "business name", limit: BUSINESS_NAME_BYTES_MAX });
    }
    let owner = SigningKey::from_bytes(&random()?);
    let device_key: [u8; 32] = random()?;
    let entropy: [u8; 32] = random()?;
    let phrase = bip39::Mnemonic::from_entropy(&entropy)
        .map_err(|_| FolderError::Incomplete { path: folder.to_owned(), what: "the recovery phrase" })?;
    let recovery = SigningKey::from_bytes(&blake3::derive_key("tillmesh 2026 recovery key", &phrase.to_entropy()));
    let genesis = Genesis {
        name: name.to_owned(),
        currency,
        founded: at,
        owners: vec![OwnerKey(owner.verifying_key().to_bytes())],
        recovery: OwnerKey(recovery.verifying_key().to_bytes()),
        utc_offset_minutes,
        nonce: random()?,
    };
    let device = DeviceId(SigningKey::from_bytes(&device_key).verifying_key().to_bytes());
    check_device_name(device_name)?;
    let certificate = Certificate::sign(genesis.business(), device, device_name.to_owned(), Role::Till, at, &owner);
    let admission =
        Admission { genesis: genesis.clone(), certificate, discovery_secret: random()?, introducers: Vec::new() };
    create(folder, &admission, &device_key, Some(&owner))?;
    Ok(Founded { genesis, device, recovery_phrase: phrase.to_string() })
}

pub(crate) fn check_device_name(name: &str) -> Result<(), FolderError> {
    if name.is_empty() || name.len() > DEVICE_NAME_BYTES_MAX {
        return Err(FolderError::Name { what: "device name", limit: DEVICE_NAME_BYTES_MAX });
    }
    Ok(())
}

/// Makes the folder of a device that belongs to a business. The storage file appears last.
pub(crate) fn create(
    folder: &Path,
    admission: &Admission,
    device_key: &[u8; 32],
    owner: Option<&SigningKey>,
) -> Result<(), FolderError> {
    if is_taken(folder) {
        return Err(FolderError::Taken { path: folder.to_owned() });
    }
    make_private(folder)?;
    let mut batch = Batch::new(Durability::OwnEntries);
    let cbor = |value: Result<Vec<u8>, _>| value.unwrap_or_default();
    batch.put(Rows::Local, GENESIS, cbor(minicbor::to_vec(&admission.genesis)));
    batch.put(Rows::Local, CERTIFICATE, cbor(minicbor::to_vec(&admission.certificate)));
    batch.put(Rows::Local, DEVICE_KEY, *device_key);
    batch.put(Rows::Local, DISCOVERY_SECRET, admission.discovery_secret);
    batch.put(Rows::Local, INTRODUCERS, cbor(minicbor::to_vec(&admission.introducers)));
    if let Some(owner) = owner {
        batch.put(Rows::Local, OWNER_KEY, owner.to_bytes());
    }
    let fresh = folder.join(FRESH_FILE);
    if fresh.exists() {
        fs::remove_file(&fresh).map_err(io_error(&fresh))?;
    }
    let mut storage = RedbStorage::create(&fresh, random()?)?;
    storage.commit(&batch)?;
    drop(storage);
    let file = folder.join(STORAGE_FILE);
    fs::rename(&fresh, &file).map_err(io_error(&file))?;
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error(folder))
}

/// Makes a folder that only its user may read: it holds keys.
fn make_private(folder: &Path) -> Result<(), FolderError> {
    fs::create_dir_all(folder).map_err(io_error(folder))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(io_error(folder))?;
    }
    Ok(())
}

/// Opens a folder.
///
/// # Errors
/// [`FolderError`]; [`OpenError::Held`] tells that a node runs on it.
pub fn open(folder: &Path, marker: Option<&Path>) -> Result<OpenFolder, FolderError> {
    let file = folder.join(STORAGE_FILE);
    let storage = RedbStorage::open(&file)?;
    let reader = storage.reader();
    let incomplete = |what| FolderError::Incomplete { path: folder.to_owned(), what };
    let row = |key: &[u8], what| reader.row(Rows::Local, key)?.ok_or_else(|| incomplete(what));
    let genesis: Genesis = minicbor::decode(&row(GENESIS, "the business")?).map_err(|_| incomplete("the business"))?;
    let certificate: Certificate =
        minicbor::decode(&row(CERTIFICATE, "the certificate")?).map_err(|_| incomplete("the certificate"))?;
    let key_of = |bytes: Vec<u8>, what| {
        <[u8; 32]>::try_from(bytes).map(|bytes| SigningKey::from_bytes(&bytes)).map_err(|_| incomplete(what))
    };
    let key = key_of(row(DEVICE_KEY, "the device key")?, "the device key")?;
    let owner = reader.row(Rows::Local, OWNER_KEY)?.map(|bytes| key_of(bytes, "the owner key")).transpose()?;
    let discovery_secret =
        row(DISCOVERY_SECRET, "the discovery secret")?.try_into().map_err(|_| incomplete("the discovery secret"))?;
    let introducers =
        reader.row(Rows::Local, INTRODUCERS)?.and_then(|bytes| minicbor::decode(&bytes).ok()).unwrap_or_default();
    certificate.verify(&genesis)?;
    forget_running(folder)?;
    let marker_file = marker.map_or_else(|| folder.join(MARKER_FILE), Path::to_owned);
    let marker = RestoreMarker::new(&file, marker_file);
    let continuity = marker.continuity(reader.as_ref())?;
    let identity = Identity { genesis, certificate, key, entropy: random()?, carries_own: false };
    Ok(OpenFolder { storage, identity, owner, discovery_secret, introducers, continuity, marker })
}

/// Whoever holds the folder is the one that runs on it; what a crashed node said is not true any
/// more.
fn forget_running(folder: &Path) -> Result<(), FolderError> {
    let path = folder.join(RUNNING_FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error(&path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Where the node that runs on a folder can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its HTTP API.
    pub api: SocketAddr,
    /// Its process.
    pub pid: u32,
}

/// Says where the node on this folder listens, until the guard is dropped.
pub(crate) fn announce(folder: &Path, running: &Running) -> Result<RunningFile, FolderError> {
    let path = folder.join(RUNNING_FILE);
    let text = serde_json::to_vec(running).unwrap_or_default();
    let fresh = folder.join(format!("{RUNNING_FILE}.new"));
    let write = || -> std::io::Result<()> {
        fs::File::create(&fresh)?.write_all(&text)?;
        fs::rename(&fresh, &path)
    };
    write().map_err(io_error(&path))?;
    Ok(RunningFile { path })
}

/// Where the node that runs on `folder` listens, if one says so. It may be gone by now.
#[must_use]
pub fn running(folder: &Path) -> Option<Running> {
    serde_json::from_slice(&fs::read(folder.join(RUNNING_FILE)).ok()?).ok()
}

/// Removes the announcement when the node ends.
#[derive(Debug)]
pub(crate) struct RunningFile {
    path: PathBuf,
}

impl Drop for RunningFile {
    fn drop(&mut self) {
        // A file left behind only names a node that no longer answers.
        drop(fs::remove_file(&self.path));
    }
}

/// The key with which a device that is joining was first seen: kept until it has joined.
pub(crate) fn joining_key(folder: &Path) -> Result<[u8; 32], FolderError> {
    make_private(folder)?;
    let path = folder.join(JOINING_FILE);
    if let Ok(bytes) = fs::read(&path)
        && let Ok(key) = <[u8; 32]>::try_from(bytes)
    {
        return Ok(key);
    }
    let key: [u8; 32] = random()?;
    fs::write(&path, key).map_err(io_error(&path))?;
    Ok(key)
}

pub(crate) fn forget_joining_key(folder: &Path) -> Result<(), FolderError> {
    let path = folder.join(JOINING_FILE);
    fs::remove_file(&path).map_err(io_error(&path))
}

const JOINING_FILE: &str = "joining-key";
