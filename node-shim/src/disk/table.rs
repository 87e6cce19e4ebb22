//! The last function table on disk.
//!
//! ```text
//! "SELVAGE\0"  format u32  api u32  version u64  epoch u64  serial u64
//! contact u64 (ms since the epoch)  ttl u64 (ms)  length u64  body  SHA-256 of everything before
//! ```
//!
//! Numbers are little-endian. The body is a complete `Batch` of the node API without the values of secrets.
//! A file that is damaged or written by another version is renamed for later inspection. The node then
//! reads the previous table, and without one it waits for the operator.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use node_api::v1::{Batch, FunctionRecord, SnapshotPhase};
use prost::Message;
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use super::{DRAFT_PREFIX, StateDir, StateLock, sync_folder};

const MAGIC: &[u8; 8] = b"SELVAGE\0";
const FORMAT: u32 = 1;
const HEADER: usize = 64;
const HASH: usize = 32;
/// Maximum size of a table file in bytes. A larger file counts as damaged.
const MAX_FILE: u64 = 256 << 20;
const MAX_SET_ASIDE: usize = 3;

/// Metadata of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableHeader {
    /// Version of the table.
    pub version: u64,
    /// Highest epoch of any fencing token.
    pub epoch: u64,
    /// Highest serial of any fencing token.
    pub serial: u64,
    /// Last contact with an operator in milliseconds since the Unix epoch; 0 if there was none.
    pub last_contact_ms: u64,
    /// Time in milliseconds after the last contact from which candidates receive no traffic.
    pub unsupervised_ttl_ms: u64,
}

/// A function table as stored on disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PersistedTable {
    /// Metadata of the table.
    pub header: TableHeader,
    /// Functions, with references to secrets in place of their values.
    pub functions: Vec<FunctionRecord>,
    /// Functions of other nodes, and addresses of nodes: only the fields of a batch for these. `addresses_complete` is
    /// whether an operator has sent all of them.
    pub remote: Batch,
}

/// The file of the current table and that of the previous one.
#[derive(Clone, Debug)]
pub struct TableFile {
    folder: PathBuf,
}

impl TableFile {
    /// Returns the files below `dir`.
    #[must_use]
    pub fn new(dir: &StateDir) -> Self {
        Self {
            folder: dir.state(),
        }
    }

    /// Writes a table durably. The current table becomes the previous one.
    ///
    /// # Errors
    /// Returns the error of the file system. The existing tables stay readable.
    pub fn save(&self, _lock: &StateLock, kept: &PersistedTable) -> io::Result<()> {
        let draft = self.folder.join(format!("{DRAFT_PREFIX}table"));
        let written = self.write(&draft, &encode(kept));
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written
    }

    fn write(&self, draft: &PathBuf, bytes: &[u8]) -> io::Result<()> {
        let (table, previous) = (
            self.folder.join("table"),
            self.folder.join("table.previous"),
        );
        let mut file = File::create(draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // a hard link first, so that a table exists at any time
        let link = self.folder.join(format!("{DRAFT_PREFIX}previous"));
        let _ = fs::remove_file(&link);
        match fs::hard_link(&table, &link) {
            Ok(()) => fs::rename(&link, &previous)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::rename(draft, &table)?;
        sync_folder(&self.folder);
        Ok(())
    }

    /// Returns the newest readable table and the number of unreadable ones. Unreadable files are renamed
    /// when the caller holds the lock.
    #[must_use]
    pub fn load(&self, lock: Option<&StateLock>) -> (Option<PersistedTable>, u64) {
        let mut damaged = 0;
        for name in ["table", "table.previous"] {
            let path = self.folder.join(name);
            match read(&path) {
                Ok(Some(kept)) => return (Some(kept), damaged),
                Ok(None) => {}
                Err(error) => {
                    damaged += 1;
                    tracing::error!(path = %path.display(), %error, "the stored function table cannot be read");
                    if lock.is_some() {
                        self.set_aside(name);
                    }
                }
            }
        }
        (None, damaged)
    }

    fn set_aside(&self, name: &str) {
        let at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        let _ = fs::rename(
            self.folder.join(name),
            self.folder.join(format!("damaged.{at}.{name}")),
        );
        let mut aside: Vec<PathBuf> = fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("damaged."))
            .map(|entry| entry.path())
            .collect();
        aside.sort();
        let surplus = aside.len().saturating_sub(MAX_SET_ASIDE);
        for path in aside.into_iter().take(surplus) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes the values of secrets from a record and keeps the references, which marks the values as unknown.
pub(crate) fn without_secrets(mut record: FunctionRecord) -> FunctionRecord {
    for definition in &mut record.definitions {
        for secret in definition.secrets_mut() {
            secret.value.zeroize();
        }
    }
    for certificate in &mut record.certificates {
        certificate.pair = None;
    }
    record
}

fn encode(kept: &PersistedTable) -> Vec<u8> {
    let batch = Batch {
        version: kept.header.version,
        snapshot: SnapshotPhase::Whole.into(),
        functions: kept
            .functions
            .iter()
            .cloned()
            .map(without_secrets)
            .collect(),
        node_sets: kept.remote.node_sets.clone(),
        remote: kept.remote.remote.clone(),
        addresses: kept.remote.addresses.clone(),
        addresses_complete: kept.remote.addresses_complete,
        ..Batch::default()
    };
    let body = batch.encode_to_vec();
    let mut bytes = Vec::with_capacity(HEADER + body.len() + HASH);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&node_api::PROTOCOL_VERSION.to_le_bytes());
    let TableHeader {
        version,
        epoch,
        serial,
        last_contact_ms: contact,
        unsupervised_ttl_ms: ttl,
    } = kept.header;
    for number in [version, epoch, serial, contact, ttl, body.len() as u64] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&body);
    let hash = Sha256::digest(&bytes);
    bytes.extend_from_slice(&hash);
    bytes
}

fn read(path: &PathBuf) -> io::Result<Option<PersistedTable>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    decode(&bytes)
        .map(Some)
        .map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))
}

fn decode(bytes: &[u8]) -> Result<PersistedTable, &'static str> {
    let content = bytes.len().checked_sub(HASH).ok_or("too short")?;
    let (signed, hash) = bytes.split_at_checked(content).ok_or("too short")?;
    let (header, body) = signed.split_at_checked(HEADER).ok_or("too short")?;
    let (magic, header) = header.split_at_checked(MAGIC.len()).ok_or("too short")?;
    if magic != MAGIC {
        return Err("not a table");
    }
    if Sha256::digest(signed).as_slice() != hash {
        return Err("checksum mismatch");
    }
    let (formats, numbers) = header.split_at_checked(8).ok_or("too short")?;
    let mut formats = formats
        .as_chunks::<4>()
        .0
        .iter()
        .map(|chunk| u32::from_le_bytes(*chunk));
    if formats.next() != Some(FORMAT) || formats.next() != Some(node_api::PROTOCOL_VERSION) {
        return Err("written by another version of this program");
    }
    let mut numbers = numbers
        .as_chunks::<8>()
        .0
        .iter()
        .map(|chunk| u64::from_le_bytes(*chunk));
    let mut number = || numbers.next().unwrap_or_default();
    let header = TableHeader {
        version: number(),
        epoch: number(),
        serial: number(),
        last_contact_ms: number(),
        unsupervised_ttl_ms: number(),
    };
    if number() != body.len() as u64 {
        return Err("length mismatch");
    }
    let batch = Batch::decode(body).map_err(|_| "body does not parse")?;
    Ok(PersistedTable {
        header,
        functions: batch.functions,
        remote: Batch {
            node_sets: batch.node_sets,
            remote: batch.remote,
            addresses: batch.addresses,
            addresses_complete: batch.addresses_complete,
            ..Batch::default()
        },
    })
}

#[cfg(test)]
mod tests {
    use node_api::v1::env_var::Kind;
    use node_api::v1::key_value_store::Kind as StoreKind;
    use node_api::v1::{
        Certificate, CertificatePair, Definition, EnvVar, FunctionKey, KeyValueStore, NodeAddress,
        NodeSet, RedisStore, RemoteFunction, SecretValue,
    };

    use super::*;

    fn kept(version: u64) -> PersistedTable {
        let secret = SecretValue {
            reference: "db/password".into(),
            value: Some(b"hunter2hunter2".to_vec()),
        };
        let variable = EnvVar {
            name: "P".into(),
            kind: Some(Kind::Secret(secret.clone())),
        };
        let definition = Definition {
            revision: "r1".into(),
            env: vec![variable.clone()],
            config: vec![variable],
            key_value: vec![KeyValueStore {
                label: "cart".into(),
                kind: Some(StoreKind::Redis(RedisStore {
                    url: Some(secret),
                    ..RedisStore::default()
                })),
            }],
            ..Definition::default()
        };
        PersistedTable {
            header: TableHeader {
                version,
                epoch: 3,
                serial: 9,
                last_contact_ms: 1_000,
                unsupervised_ttl_ms: 600_000,
            },
            functions: vec![FunctionRecord {
                key: Some(FunctionKey {
                    namespace: "a".into(),
                    name: "f".into(),
                }),
                definitions: vec![definition],
                certificates: vec![Certificate {
                    secret: "tls".into(),
                    pair: Some(CertificatePair {
                        chain: b"chain".to_vec(),
                        key: b"hunter2hunter2".to_vec(),
                    }),
                }],
                ..FunctionRecord::default()
            }],
            remote: Batch {
                node_sets: vec![NodeSet {
                    id: 7,
                    nodes: vec!["node-2".into()],
                }],
                remote: vec![RemoteFunction {
                    uid: "u".into(),
                    node_set: 7,
                    ..RemoteFunction::default()
                }],
                addresses: vec![NodeAddress {
                    node: "node-2".into(),
                    address: "192.0.2.2".into(),
                    port: 8080,
                }],
                addresses_complete: true,
                ..Batch::default()
            },
        }
    }

    fn folder() -> (tempfile::TempDir, StateDir, StateLock) {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::new(folder.path());
        dir.create().unwrap();
        let lock = StateLock::try_take(&dir).unwrap().unwrap();
        (folder, dir, lock)
    }

    #[test]
    fn a_table_is_restored_without_secret_values() {
        let (_folder, dir, lock) = folder();
        let file = TableFile::new(&dir);
        file.save(&lock, &kept(7)).unwrap();
        let raw = fs::read(dir.state().join("table")).unwrap();
        assert!(!raw.windows(14).any(|window| window == b"hunter2hunter2"));
        let (loaded, damaged) = file.load(Some(&lock));
        let mut expected = kept(7);
        expected.functions = expected
            .functions
            .into_iter()
            .map(without_secrets)
            .collect();
        assert_eq!((loaded, damaged), (Some(expected), 0));
    }

    /// FN-4: any changed byte and any truncation of the table is detected.
    #[test]
    fn a_damaged_table_is_detected_and_the_previous_one_is_read() {
        let (_folder, dir, lock) = folder();
        let file = TableFile::new(&dir);
        file.save(&lock, &kept(7)).unwrap();
        file.save(&lock, &kept(8)).unwrap();
        let good = fs::read(dir.state().join("table")).unwrap();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 0x40;
            assert!(decode(&bad).is_err(), "flip at {position}");
            assert!(decode(&good[..position]).is_err(), "cut at {position}");
        }
        let mut bad = good;
        bad[70] ^= 1;
        fs::write(dir.state().join("table"), bad).unwrap();
        let (loaded, damaged) = file.load(Some(&lock));
        assert_eq!((loaded.unwrap().header.version, damaged), (7, 1));
        let names: Vec<String> = fs::read_dir(dir.state())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(
            names.iter().any(|name| name.starts_with("damaged.")),
            "{names:?}"
        );
        assert!(!names.iter().any(|name| name == "table"), "{names:?}");
    }

    #[test]
    fn a_newer_format_is_rejected() {
        let mut bytes = encode(&kept(1));
        bytes.truncate(bytes.len() - HASH);
        bytes[8] = 2;
        let hash = Sha256::digest(&bytes);
        bytes.extend_from_slice(&hash);
        assert_eq!(
            decode(&bytes),
            Err("written by another version of this program")
        );
    }

    #[test]
    fn a_missing_table_is_not_damaged() {
        let (_folder, dir, lock) = folder();
        assert_eq!(TableFile::new(&dir).load(Some(&lock)), (None, 0));
    }
}
