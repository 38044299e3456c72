//! Every file operation of the engine: the one seam between it and an operating system.
//!
//! Each call says in its error what it was doing, and to which file.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::hash::BuildHasher;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FallocateFlags};

use crate::error::FileError;
use crate::map::{Frontier, Map};

/// Zeros are written in pieces of this size: see "Findings" in docs/architecture.md.
const ZEROES_BYTES: usize = 256 << 10;

/// The filesystem.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub(crate) faults: faults::Faults,
}

impl Disk {
    fn check(&self, action: &'static str, path: &Path) -> Result<(), FileError> {
        #[cfg(test)]
        self.faults.check(action, path)?;
        let _ = (action, path);
        Ok(())
    }

    fn open_with(
        &self,
        action: &'static str,
        path: &Path,
        options: &OpenOptions,
    ) -> Result<DiskFile, FileError> {
        self.check(action, path)?;
        let file = options
            .open(path)
            .map_err(|e| FileError::new(action, path, e))?;
        Ok(DiskFile {
            disk: self.clone(),
            path: path.to_owned(),
            file,
        })
    }

    /// An empty file of this name, whether there was one or not.
    pub(crate) fn create(&self, path: &Path) -> Result<DiskFile, FileError> {
        let mut options = OpenOptions::new();
        self.open_with(
            "create",
            path,
            options.read(true).write(true).create(true).truncate(true),
        )
    }

    pub(crate) fn create_if_missing(&self, path: &Path) -> Result<DiskFile, FileError> {
        let mut options = OpenOptions::new();
        self.open_with(
            "create",
            path,
            options.read(true).write(true).create(true).truncate(false),
        )
    }

    /// Opens a file for reading, or a directory to sync its names.
    pub(crate) fn open(&self, path: &Path) -> Result<DiskFile, FileError> {
        self.open_with("open", path, OpenOptions::new().read(true))
    }

    pub(crate) fn open_writable(&self, path: &Path) -> Result<DiskFile, FileError> {
        self.open_with("open", path, OpenOptions::new().read(true).write(true))
    }

    /// Gives a file a second name. `false`: nothing at `to` can be the same file, because it is another
    /// filesystem, or one that does not do this, or does not let us.
    pub(crate) fn link(&self, from: &Path, to: &Path) -> Result<bool, FileError> {
        use rustix::io::Errno;
        self.check("link", to)?;
        let here = rustix::fs::CWD;
        let linked = rustix::fs::linkat(here, from, here, to, AtFlags::SYMLINK_FOLLOW);
        match linked {
            Err(Errno::XDEV | Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP | Errno::NOSYS) => {
                Ok(false)
            }
            linked => linked
                .map(|()| true)
                .map_err(|e| FileError::new("link", from, e)),
        }
    }

    /// Removes a file; one that is not there is as good.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), FileError> {
        self.check("remove", path)?;
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::new("remove", path, e)),
            _ => Ok(()),
        }
    }

    /// Creates a directory and those above it; durable when this returns.
    pub(crate) fn create_dir(&self, path: &Path) -> Result<(), FileError> {
        self.check("create", path)?;
        let missing: Vec<&Path> = path
            .ancestors()
            .take_while(|above| !above.as_os_str().is_empty() && !above.exists())
            .collect();
        // One after the other, and durable before the next: of those that an earlier call made, and
        // failed or died, only the name of the last one can be in doubt.
        for (i, made) in missing.iter().rev().enumerate() {
            let above = match made.parent() {
                Some(above) if !above.as_os_str().is_empty() => above,
                _ => Path::new("."),
            };
            if i == 0 {
                self.sync_own_name(above)?;
            }
            match fs::create_dir(made) {
                // Made by somebody else meanwhile, or on a way that goes down and up again.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && made.is_dir() => {}
                created => created.map_err(|e| FileError::new("create", made, e))?,
            }
            self.sync_dir(above)?;
        }
        Ok(())
    }

    /// Makes the name of a directory durable.
    pub(crate) fn sync_own_name(&self, dir: &Path) -> Result<(), FileError> {
        match dir.canonicalize().ok().as_deref().and_then(Path::parent) {
            Some(parent) => match self.sync_dir(parent) {
                // A directory that we may not read, or on a filesystem that syncs no names, as `/sys`,
                // was not made by us just now.
                Err(e) if e.is_not_writable() || e.io().kind() == io::ErrorKind::InvalidInput => {
                    Ok(())
                }
                synced => synced,
            },
            None => Ok(()),
        }
    }

    /// Whether there is a directory at `path`; `None` where there is nothing.
    pub(crate) fn is_dir(&self, path: &Path) -> Result<Option<bool>, FileError> {
        self.check("stat", path)?;
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(metadata.is_dir())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(FileError::new("stat", path, e)),
        }
    }

    pub(crate) fn inode(&self, path: &Path) -> Result<u64, FileError> {
        self.check("stat", path)?;
        fs::metadata(path)
            .map(|m| m.ino())
            .map_err(|e| FileError::new("stat", path, e))
    }

    /// Makes created, renamed and removed names of a directory durable.
    pub(crate) fn sync_dir(&self, path: &Path) -> Result<(), FileError> {
        self.open(path)?.sync_names()
    }

    /// The names in a directory, in no order.
    pub(crate) fn list(&self, path: &Path) -> Result<Vec<OsString>, FileError> {
        self.check("list", path)?;
        let names = |path: &Path| -> io::Result<_> {
            fs::read_dir(path)?
                .map(|entry| Ok(entry?.file_name()))
                .collect()
        };
        names(path).map_err(|e| FileError::new("list", path, e))
    }

    /// A small file as a whole.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>, FileError> {
        self.check("read", path)?;
        fs::read(path).map_err(|e| FileError::new("read", path, e))
    }

    /// A number that nobody can foresee.
    pub(crate) fn random_u32(&self) -> u32 {
        // The standard library's hash keys come from the system's random source.
        let hash = std::hash::RandomState::new().hash_one(std::process::id());
        u32::try_from(hash >> 32).expect("shifted")
    }

    /// Whether stores to allocated blocks of a mapped file here can never run out of space:
    /// the filesystem is one that is known to overwrite blocks in place.
    pub(crate) fn overwrites_in_place(&self, path: &Path) -> Result<bool, FileError> {
        const EXT: i128 = 0xEF53;
        const XFS: i128 = 0x5846_5342;
        const TMPFS: i128 = 0x0102_1994;
        let fs = rustix::fs::statfs(path).map_err(|e| FileError::new("statfs", path, e))?;
        Ok([EXT, XFS, TMPFS].contains(&i128::from(fs.f_type)))
    }
}

/// An open file.
#[derive(Debug)]
pub(crate) struct DiskFile {
    disk: Disk,
    path: PathBuf,
    file: File,
}

impl DiskFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn attempt<T>(
        &self,
        action: &'static str,
        call: impl FnOnce(&File) -> io::Result<T>,
    ) -> Result<T, FileError> {
        self.disk.check(action, &self.path)?;
        call(&self.file).map_err(|e| FileError::new(action, &self.path, e))
    }

    /// Gives the file the name `to`, in place of a file that has it.
    pub(crate) fn rename(&mut self, to: &Path) -> Result<(), FileError> {
        self.attempt("rename", |_| fs::rename(&self.path, to))?;
        self.path = to.to_owned();
        Ok(())
    }

    pub(crate) fn bytes(&self) -> Result<u64, FileError> {
        self.attempt("stat", |file| Ok(file.metadata()?.len()))
    }

    /// Whether the file still has a name; a file that was replaced has none.
    pub(crate) fn is_linked(&self) -> Result<bool, FileError> {
        self.attempt("stat", |file| Ok(file.metadata()?.nlink() > 0))
    }

    pub(crate) fn read_at(&self, into: &mut [u8], position: u64) -> Result<(), FileError> {
        self.attempt("read", |file| file.read_exact_at(into, position))
    }

    pub(crate) fn write_at(&self, bytes: &[u8], position: u64) -> Result<(), FileError> {
        self.attempt("write", |file| file.write_all_at(bytes, position))
    }

    /// Gives the file `bytes` bytes with blocks behind all of them, and zeros where there was
    /// nothing. `false`: the filesystem cannot, and writing the zeros has to do it.
    pub(crate) fn allocate(&self, bytes: u64) -> Result<bool, FileError> {
        self.attempt("allocate", |file| {
            match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
                Err(rustix::io::Errno::OPNOTSUPP) => Ok(false),
                result => Ok(result.map(|()| true)?),
            }
        })
    }

    /// Makes this empty file a copy of another one that shares its blocks, until one of the two is
    /// written to. `false`: the filesystem cannot.
    pub(crate) fn share_blocks_of(&self, other: &Self) -> Result<bool, FileError> {
        use rustix::io::Errno;
        self.attempt(
            "share blocks with",
            |file| match rustix::fs::ioctl_ficlone(file, &other.file) {
                Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::XDEV | Errno::INVAL) => Ok(false),
                result => Ok(result.map(|()| true)?),
            },
        )
    }

    /// Writes zeros from `from` to `to`, so that later stores find written blocks.
    pub(crate) fn write_zeroes(&self, from: u64, to: u64) -> Result<(), FileError> {
        let zeroes = vec![0; ZEROES_BYTES];
        let mut position = from;
        while position < to {
            let left = usize::try_from(to - position).unwrap_or(usize::MAX);
            let piece = &zeroes[..left.min(ZEROES_BYTES)];
            self.write_at(piece, position)?;
            position += piece.len() as u64;
        }
        Ok(())
    }

    /// Gives the blocks of a range back; it then reads as zeros. Best effort: not every
    /// filesystem can.
    pub(crate) fn punch_hole(&self, from: u64, to: u64) -> Result<(), FileError> {
        if from >= to {
            return Ok(());
        }
        self.attempt("punch a hole into", |file| {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match rustix::fs::fallocate(file, flags, from, to - from) {
                Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
                result => Ok(result?),
            }
        })
    }

    /// `fdatasync`. After a failure the pages it covered are in an unknown state: never try again.
    pub(crate) fn sync_data(&self) -> Result<(), FileError> {
        self.attempt("sync", File::sync_data)
    }

    /// Makes the names in this directory durable.
    pub(crate) fn sync_names(&self) -> Result<(), FileError> {
        self.attempt("sync", File::sync_all)
    }

    /// Drops what the page cache holds of the file from `from` on, so that it is read from the disk
    /// again. Pages that some process has mapped, or that are not written back, stay.
    pub(crate) fn evict(&self, from: u64) -> Result<(), FileError> {
        self.attempt("evict", |file| {
            Ok(rustix::fs::fadvise(
                file,
                from,
                None,
                rustix::fs::Advice::DontNeed,
            )?)
        })
    }

    pub(crate) fn map_sealed(&self, capacity: usize) -> Result<Map, FileError> {
        self.attempt("map", |file| Map::sealed(file, capacity))
    }

    pub(crate) fn map_writable(
        &self,
        capacity: usize,
        published: usize,
    ) -> Result<Frontier, FileError> {
        self.attempt("map", |file| Frontier::writable(file, capacity, published))
    }

    pub(crate) fn map_growing(
        &self,
        capacity: usize,
        published: usize,
    ) -> Result<Frontier, FileError> {
        self.attempt("map", |file| Frontier::read_only(file, capacity, published))
    }

    /// Takes the file's lock, which the kernel drops with the process. `false`: another one has it.
    pub(crate) fn try_lock(&self) -> Result<bool, FileError> {
        self.attempt("lock", |file| match file.try_lock() {
            Ok(()) => Ok(true),
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(e)) => Err(e),
        })
    }

    /// Gives the file's lock back, for all who have this opening of the file.
    pub(crate) fn unlock(&self) -> Result<(), FileError> {
        self.attempt("unlock", File::unlock)
    }
}

/// Faults on demand, for the tests of this crate.
#[cfg(test)]
pub(crate) mod faults {
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::{Arc, Barrier, Mutex};

    use crate::error::FileError;

    /// The calls that are to fail, and those that were made; shared by all clones of a disk.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Faults(Arc<Mutex<Plan>>);

    #[derive(Debug, Default)]
    struct Plan {
        faults: Vec<Fault>,
        calls: Vec<(&'static str, PathBuf)>,
        /// So many calls pass, and then these fail.
        ending: Option<(usize, Ending)>,
    }

    /// What becomes of the calls behind those that pass.
    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Ending {
        /// One fails.
        Failure,
        /// All fail, as if the process had been killed.
        Kill,
    }

    #[derive(Clone, Debug)]
    struct Fault {
        action: &'static str,
        path_end: String,
        /// `None`: it goes on.
        kind: Option<io::ErrorKind>,
        /// Met twice by the call: as it begins, and before it fails or goes on.
        gate: Option<Arc<Barrier>>,
    }

    impl Faults {
        /// Lets every `action` on a path that ends so fail, until [`heal`](Self::heal).
        pub(crate) fn fail(&self, action: &'static str, path_end: &str, kind: io::ErrorKind) {
            let path_end = path_end.to_owned();
            self.0.lock().unwrap().faults.push(Fault {
                action,
                path_end,
                kind: Some(kind),
                gate: None,
            });
        }

        /// As [`fail`](Self::fail), once; the call hangs between the two times that it meets the gate.
        pub(crate) fn hang_and_fail(
            &self,
            action: &'static str,
            path_end: &str,
            gate: &Arc<Barrier>,
        ) {
            self.hang_with(action, path_end, gate, Some(io::ErrorKind::Other));
        }

        /// As [`hang_and_fail`](Self::hang_and_fail), but then the call is made.
        pub(crate) fn hang(&self, action: &'static str, path_end: &str, gate: &Arc<Barrier>) {
            self.hang_with(action, path_end, gate, None);
        }

        fn hang_with(
            &self,
            action: &'static str,
            path_end: &str,
            gate: &Arc<Barrier>,
            kind: Option<io::ErrorKind>,
        ) {
            let (path_end, gate) = (path_end.to_owned(), Some(Arc::clone(gate)));
            let fault = Fault {
                action,
                path_end,
                kind,
                gate,
            };
            self.0.lock().unwrap().faults.push(fault);
        }

        pub(crate) fn heal(&self) {
            let mut plan = self.0.lock().unwrap();
            plan.faults.clear();
            plan.ending = None;
        }

        /// Lets so many calls pass, and then the next one, or all, fail; until [`heal`](Self::heal).
        pub(crate) fn end_after(&self, calls: usize, ending: Ending) {
            self.0.lock().unwrap().ending = Some((calls, ending));
        }

        /// All calls since this was last asked, in order.
        pub(crate) fn take_all_calls(&self) -> Vec<(&'static str, PathBuf)> {
            std::mem::take(&mut self.0.lock().unwrap().calls)
        }

        /// The paths of all calls of one kind since this was last asked.
        pub(crate) fn take_calls(&self, action: &'static str) -> Vec<PathBuf> {
            let mut plan = self.0.lock().unwrap();
            plan.calls
                .extract_if(.., |(made, _)| *made == action)
                .map(|(_, path)| path)
                .collect()
        }

        pub(crate) fn check(&self, action: &'static str, path: &Path) -> Result<(), FileError> {
            let mut plan = self.0.lock().unwrap();
            plan.calls.push((action, path.to_owned()));
            match &mut plan.ending {
                Some((0, ending)) => {
                    if matches!(ending, Ending::Failure) {
                        plan.ending = None;
                    }
                    return Err(FileError::new(action, path, io::ErrorKind::Other));
                }
                Some((left, _)) => *left -= 1,
                None => {}
            }
            let hit = |fault: &Fault| {
                fault.action == action && path.to_string_lossy().ends_with(&fault.path_end)
            };
            let Some(at) = plan.faults.iter().position(hit) else {
                return Ok(());
            };
            let fault = plan.faults[at].clone();
            if let Some(gate) = &fault.gate {
                plan.faults.remove(at);
                drop(plan);
                gate.wait();
                gate.wait();
            }
            match fault.kind {
                Some(kind) => Err(FileError::new(action, path, kind)),
                None => Ok(()),
            }
        }
    }
}
