//! Floors: what the same work costs without a shop around it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Instant;

use redb::{Database, TableDefinition};

const TABLE: TableDefinition<'_, &[u8; 24], &[u8]> = TableDefinition::new("floor");

/// Overwrites 4 KB of a file and syncs it, over and over.
pub(super) struct RawDisk {
    file: File,
    block: Vec<u8>,
}

impl RawDisk {
    pub(super) fn new(folder: &Path) -> std::io::Result<Self> {
        let path = folder.join("raw-floor");
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).read(true).open(path)?;
        let block = vec![7_u8; 4096];
        file.write_all(&block)?;
        file.sync_all()?;
        Ok(Self { file, block })
    }

    /// One overwrite and fdatasync, in microseconds.
    pub(super) fn once_us(&mut self) -> std::io::Result<f64> {
        if let Some(first) = self.block.first_mut() {
            *first = first.wrapping_add(1);
        }
        let started = Instant::now();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&self.block)?;
        self.file.sync_data()?;
        Ok(started.elapsed().as_secs_f64() * 1e6)
    }
}

/// Seconds to insert `rows` into a fresh redb file, `batch` rows a durable commit.
pub(super) fn redb_inserts_s(folder: &Path, rows: &[Vec<u8>], batch: usize) -> anyhow::Result<f64> {
    let path = folder.join(format!("floor-{}.redb", rows.len()));
    if path.exists() {
        std::fs::remove_file(&path)?;
    }
    let database = Database::create(path)?;
    let transaction = database.begin_write()?;
    transaction.open_table(TABLE)?;
    transaction.commit()?;
    let started = Instant::now();
    let mut number = 0_u64;
    for chunk in rows.chunks(batch) {
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for row in chunk {
                number += 1;
                let mut key = [0_u8; 24];
                for (to, from) in key.iter_mut().rev().zip(number.to_le_bytes()) {
                    *to = from;
                }
                table.insert(&key, row.as_slice())?;
            }
        }
        transaction.commit()?;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// Seconds to copy the rows, compressed, through a loopback socket into a synced file.
pub(super) fn tcp_copy_s(folder: &Path, rows: &[Vec<u8>]) -> anyhow::Result<f64> {
    let plain: Vec<u8> = rows.concat();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let started = Instant::now();
    let sender = std::thread::spawn(move || -> std::io::Result<()> {
        let packed = zstd::bulk::compress(&plain, 3)?;
        TcpStream::connect(address)?.write_all(&packed)
    });
    let (mut stream, _) = listener.accept()?;
    let mut packed = Vec::new();
    stream.read_to_end(&mut packed)?;
    let mut file = File::create(folder.join("floor-copy"))?;
    file.write_all(&packed)?;
    file.sync_data()?;
    let seconds = started.elapsed().as_secs_f64();
    sender.join().map_err(|_| anyhow::anyhow!("the floor's sender failed"))??;
    Ok(seconds)
}
