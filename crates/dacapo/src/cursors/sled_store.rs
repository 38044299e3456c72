//! The store of cursors: a sled database that holds the second copy of each.
//!
//! What sled 0.34 does on its own is worked around here:
//!
//! - Its `flush` returns before the disk has anything: it asks for the write-back of a range and waits for
//!   no flush of the disk. The file is synced through a descriptor of our own behind it. A new one is
//!   synced as a whole, with the names that lead to it.
//! - It opens an older state where bytes have rotted, without a word. Each value is an
//!   [entry](super::entry) with its own checksum, log and generation, and is compared with the list.
//! - It lets go of its lock some time after it was dropped. Opening waits for that.
//! - It panics over some damage, and where its last sync fails. Panics end here, as errors.
//!
//! Its calls block: none of them belongs on an async executor.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::error::CursorError;
use super::files;

pub(super) const STORE_DIR: &str = "cursors";
/// sled's own file in there.
const DB_FILE: &str = "db";
/// All cursors together take a fraction of it.
const CACHE_BYTES: u64 = 1 << 20;

/// How long a lock outlives the database that took it, at most.
const LOCK_LINGERS_MAX: Duration = Duration::from_secs(5);
const LOCK_LOOKS_EVERY: Duration = Duration::from_millis(1);

/// The open database.
pub(super) struct SledStore {
    path: PathBuf,
    /// `None` once it is closed.
    db: Option<sled::Db>,
    /// For syncs that sled does not do.
    file: File,
}

/// What was read from the store, unchecked.
pub(super) struct StoredValue {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

impl SledStore {
    /// Opens the store at `path`, or creates it; durable when this returns, names included.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<StoredValue>), CursorError> {
        let is_new = match fs::metadata(path) {
            Ok(found) if found.is_dir() => !path.join(DB_FILE).exists(),
            Ok(_) => return Err(CursorError::damaged(path, "it is a file and no directory")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => true,
            Err(e) => return Err(CursorError::io("look at", path, e)),
        };
        let (db, values) = open_behind_an_earlier_one(path)?;
        let db_path = path.join(DB_FILE);
        let file = File::open(&db_path).map_err(|e| CursorError::io("open", &db_path, e))?;
        let store = Self {
            path: path.to_owned(),
            db: Some(db),
            file,
        };
        if is_new {
            store.flush()?;
            files::sync_tree(path)?;
            if let Some(above) = path.parent() {
                files::sync_dir(above)?;
            }
        }
        Ok((store, values))
    }

    /// Puts entries under their names, and removes those that have none any more; durable when this
    /// returns.
    pub(super) fn write<'a>(
        &self,
        entries: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Result<(), CursorError> {
        guarded(&self.path, || {
            let db = self.db();
            for (name, entry) in entries {
                match entry {
                    Some(entry) => db.insert(name, entry)?,
                    None => db.remove(name)?,
                };
            }
            Ok(())
        })?;
        self.flush()
    }

    fn flush(&self) -> Result<(), CursorError> {
        guarded(&self.path, || self.db().flush())?;
        self.file
            .sync_data()
            .map_err(|e| CursorError::io("sync", &self.path.join(DB_FILE), e))
    }

    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("it is open until it is dropped")
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        let db = self.db.take();
        // sled syncs once more here, and panics where that fails. All that counts is synced already.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
}

/// Opens the database, and waits a while for the lock on it: a thread of sled's may still have the file
/// open that was closed just now, and so has a child process between its fork and its exec.
fn open_behind_an_earlier_one(path: &Path) -> Result<(sled::Db, Vec<StoredValue>), CursorError> {
    let begun = Instant::now();
    loop {
        match guarded(path, || open_and_read(path)) {
            Err(CursorError::Held { .. }) if begun.elapsed() < LOCK_LINGERS_MAX => {
                thread::sleep(LOCK_LOOKS_EVERY);
            }
            opened => return opened,
        }
    }
}

fn open_and_read(path: &Path) -> sled::Result<(sled::Db, Vec<StoredValue>)> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .mode(sled::Mode::LowSpace)
        .flush_every_ms(None);
    let db = config.open()?;
    let values = db.iter().map(|pair| {
        let (key, value) = pair?;
        Ok(StoredValue {
            key: key.to_vec(),
            value: value.to_vec(),
        })
    });
    let values = values.collect::<sled::Result<_>>()?;
    Ok((db, values))
}

/// Calls into sled, and makes one kind of errors of its errors and its panics.
fn guarded<T>(path: &Path, call: impl FnOnce() -> sled::Result<T>) -> Result<T, CursorError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(e))) => Err(match e.kind() {
            // Not of this program's: it would have taken our lock first.
            io::ErrorKind::Other if e.to_string().contains("could not acquire lock") => {
                CursorError::Held {
                    path: path.to_owned(),
                    pid: None,
                }
            }
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::NotFound
            | io::ErrorKind::Other => CursorError::damaged(path, e.to_string()),
            _ => CursorError::io("use", path, e),
        }),
        Ok(Err(e)) => Err(CursorError::damaged(path, e.to_string())),
        Err(panic) => {
            let said = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            Err(CursorError::damaged(
                path,
                format!("reading it failed: {}", said.unwrap_or("a panic")),
            ))
        }
    }
}
