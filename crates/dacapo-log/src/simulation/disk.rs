//! The simulated disk: takes the place of `disk.rs` under `--cfg simulation`, with the same methods.
//!
//! Programs see its page cache and its names; behind them it keeps what would survive a power cut.
//! Every call is a step at which the threads of the simulation may take turns, the power may go, or
//! the call may fail. One directory, [`DIR`].

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::time::Timespec;
use shuttle::thread;

use crate::error::FileError;
use crate::guard::{self, Guard};
use crate::map::{Frontier, Map, Memory};
use crate::simulation::cut::Cut;
use crate::simulation::random::Random;

/// The only directory that there is.
pub(crate) const DIR: &str = "/simulated/log";
pub(crate) const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;
/// Removed files whose blocks may turn up again.
const ATTIC_FILES: usize = 6;

/// A simulated disk, shared by all clones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

/// All there is of a disk.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) random: Random,
    pub(crate) files: BTreeMap<u64, Inode>,
    /// What the names stand for, as running programs see it.
    pub(crate) names: BTreeMap<String, u64>,
    /// What they stand for after a power cut, if nothing of `changes` happened.
    pub(crate) durable_names: BTreeMap<String, u64>,
    /// Changes of names since the directory was last synced, in order.
    pub(crate) changes: Vec<NameChange>,
    /// Contents of files that are gone.
    pub(crate) attic: Vec<Vec<u8>>,
    next_inode: u64,
    locked: BTreeSet<u64>,
    /// Readers are in another PID namespace than the writer, and do not see its lock.
    hides_locks: bool,
    /// The next crash: before the call that makes this number zero.
    crash_in: Option<u64>,
    fault: Option<Fault>,
    /// The call that failed on demand.
    failed: Option<String>,
    /// The power is gone, or the process is: the call during which it went.
    crashed: Option<String>,
    /// One call in so many lets the kernel write something back on its own.
    write_back_rate: u64,
    calls: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum NameChange {
    Create(String, u64),
    Rename(String, String, u64),
    Remove(String),
}

/// Which call fails: the one that makes `after` zero, of those that can fail so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) after: u64,
    pub(crate) errno: Errno,
    /// Only calls of this kind, as `kind_of` names it; otherwise all.
    pub(crate) kind: Option<&'static str>,
}

#[derive(Debug, Default)]
pub(crate) struct Inode {
    /// The page cache; longer than the file, maybe.
    memory: Arc<Memory>,
    len: usize,
    /// What the disk holds for certain.
    pub(crate) durable: Vec<u8>,
    /// Sectors that a failed sync could not write, as they are in the page cache, which takes them
    /// for written.
    unwritten: BTreeMap<usize, Vec<u8>>,
    /// Pages without blocks.
    holes: BTreeSet<usize>,
    /// How often the kernel wrote something back on its own.
    write_backs: u64,
}

impl Inode {
    /// The content as programs see it.
    pub(crate) fn content(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.memory.read(0, &mut bytes);
        bytes
    }

    pub(crate) fn written(content: Vec<u8>) -> Self {
        let mut inode = Self::default();
        inode.resize(content.len());
        inode.holes.clear();
        inode.memory.write(0, &content);
        inode.durable = content;
        inode
    }

    fn is_mapped(&self) -> bool {
        Arc::strong_count(&self.memory) > 1
    }

    fn resize(&mut self, len: usize) {
        if len == self.len {
            return;
        }
        assert!(!self.is_mapped(), "a mapped file changes its length");
        let kept = self.content();
        let memory = Memory::new(len);
        memory.write(0, &kept[..kept.len().min(len)]);
        self.holes.retain(|page| page * PAGE_BYTES < len);
        self.holes
            .extend(self.len.div_ceil(PAGE_BYTES)..len.div_ceil(PAGE_BYTES));
        self.memory = Arc::new(memory);
        self.len = len;
    }

    fn write(&mut self, bytes: &[u8], position: usize) {
        let end = position + bytes.len();
        if end > self.len {
            self.resize(end);
        }
        for page in position / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            self.holes.remove(&page);
        }
        // Written again, also with the same bytes: the page cache knows that it is to be written.
        for sector in position / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            self.unwritten.remove(&sector);
        }
        self.memory.write(position, bytes);
    }

    /// Writes to the disk what `wanted` picks of the sectors that it does not hold.
    fn persist(&mut self, content: &[u8], mut wanted: impl FnMut() -> bool) {
        self.durable.resize(content.len(), 0);
        for (i, new) in content.chunks(SECTOR_BYTES).enumerate() {
            let range = i * SECTOR_BYTES..i * SECTOR_BYTES + new.len();
            if self.durable[range.clone()] == *new || !wanted() {
                continue;
            }
            if self.unwritten.get(&i).is_some_and(|lost| lost == new) {
                continue;
            }
            self.unwritten.remove(&i);
            self.durable[range].copy_from_slice(new);
        }
    }

    /// A sync failed: what it should have written passes for written.
    fn fail_to_persist(&mut self) {
        for (i, new) in self.content().chunks(SECTOR_BYTES).enumerate() {
            let start = i * SECTOR_BYTES;
            if self.durable.get(start..start + new.len()) != Some(new) {
                self.unwritten.insert(i, new.to_vec());
            }
        }
    }

    /// Reads what is not to be written from the disk again.
    fn evict(&mut self, from: usize) {
        if self.is_mapped() {
            return;
        }
        for (i, lost) in std::mem::take(&mut self.unwritten) {
            let start = i * SECTOR_BYTES;
            let mut now = vec![0; lost.len()];
            if start + lost.len() <= self.len {
                self.memory.read(start, &mut now);
            }
            if start < from {
                self.unwritten.insert(i, lost);
            } else if now == lost {
                let mut old = vec![0; lost.len()];
                let known = self.durable.get(start..).unwrap_or_default();
                let known = &known[..known.len().min(old.len())];
                old[..known.len()].copy_from_slice(known);
                self.memory.write(start, &old);
            }
        }
    }

    /// The same file in memory of its own: whoever has the old one mapped changes nothing any more.
    fn detach(&mut self) {
        let memory = Memory::new(self.len);
        memory.write(0, &self.content());
        self.memory = Arc::new(memory);
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(0)
    }
}

impl State {
    fn inode(&mut self, inode: u64) -> &mut Inode {
        self.files.get_mut(&inode).expect("an open file is there")
    }

    /// The name stands for nothing, or something else, from here on.
    fn unlink(&mut self, name: &str) {
        let Some(inode) = self.names.remove(name) else {
            return;
        };
        if !self.names.values().any(|&other| other == inode) {
            let content = self.inode(inode).content();
            if self.attic.len() == ATTIC_FILES {
                let oldest = self.random.index(ATTIC_FILES);
                self.attic.remove(oldest);
            }
            self.attic.push(content);
        }
    }

    fn sync_names(&mut self) {
        self.durable_names = self.names.clone();
        self.changes.clear();
    }

    /// Who holds which lock, as Linux lists it.
    fn locks(&self) -> String {
        if self.hides_locks {
            return String::new();
        }
        let pid = std::process::id();
        let line = |inode| format!("1: FLOCK  ADVISORY  WRITE {pid} 00:00:{inode} 0 EOF\n");
        self.locked.iter().map(line).collect()
    }

    /// The kernel writes something back that nobody asked for.
    fn write_back(&mut self) {
        if self.random.one_in(8) {
            self.sync_names();
        }
        let Some(n) = self.files.len().checked_sub(1) else {
            return;
        };
        let nth = self.random.index(n + 1);
        let mut random = self.random.fork();
        let inode = self.files.values_mut().nth(nth).expect("counted");
        let rate = random.below(4) + 1;
        let content = inode.content();
        inode.persist(&content, || random.one_in(rate));
        inode.write_backs += 1;
    }

    /// Nothing happens on this disk from here on.
    fn end(&mut self, during: String) {
        self.crashed = Some(during);
        self.crash_in = None;
        self.locked.clear();
        self.files.values_mut().for_each(Inode::detach);
    }
}

/// How a call is counted: what it does, and to what kind of file.
fn kind_of(action: &str, path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let file = match path.extension().and_then(|extension| extension.to_str()) {
        Some("seg") => "segment",
        Some("idx") => "index",
        _ if path == Path::new(DIR) => "directory",
        _ => &name,
    };
    format!("{action} {file}")
}

/// The ways in which a call of this kind can fail.
pub(crate) fn errnos_of(action: &str) -> &'static [Errno] {
    match action {
        "create" => &[Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::MFILE],
        "open" | "list" => &[Errno::IO, Errno::MFILE],
        "write" | "allocate" | "sync" | "rename" | "store" => {
            &[Errno::IO, Errno::NOSPC, Errno::DQUOT]
        }
        "map" => &[Errno::NOMEM, Errno::MFILE],
        "lock" => &[Errno::NOLCK],
        "store into" => &[],
        _ => &[Errno::IO],
    }
}

thread_local! {
    /// The disk of the simulation that runs on this thread.
    static CURRENT: RefCell<Option<Disk>> = const { RefCell::new(None) };
    static TICKS: Cell<i64> = const { Cell::new(0) };
}

/// Somebody is about to commit what was stored into a mapping.
pub(crate) fn pause_in_store() {
    let disk = CURRENT.with_borrow(Clone::clone);
    if let Some(disk) = disk {
        // What fails here cannot be told: a store either is, or the process is no more.
        let _ = disk.step("store into", Path::new("a mapped.seg"));
    }
}

/// The time goes on by a millisecond a look.
pub(crate) fn next_tick() -> Timespec {
    TICKS.set(TICKS.get() + 1);
    let ticks = TICKS.get();
    Timespec {
        tv_sec: 1_800_000_000 + ticks / 1000,
        tv_nsec: ticks % 1000 * 1_000_000,
    }
}

impl Disk {
    /// An empty one.
    pub(crate) fn new(mut random: Random) -> Self {
        TICKS.set(0);
        let write_back_rate = *random.pick(&[3, 20, 1000]);
        let hides_locks = random.one_in(4);
        Self::of(State {
            random,
            write_back_rate,
            hides_locks,
            ..State::default()
        })
    }

    fn of(state: State) -> Self {
        let disk = Self(Arc::new(Mutex::new(state)));
        CURRENT.set(Some(disk.clone()));
        disk
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the process or the power go, so many calls from now; `None`: not on its own.
    pub(crate) fn crash_in(&self, calls: Option<u64>) {
        self.state().crash_in = calls;
    }

    /// Lets readers look from another PID namespace.
    #[cfg(test)]
    pub(crate) fn hide_locks(&self) {
        self.state().hides_locks = true;
    }

    /// Lets a call fail.
    pub(crate) fn fail(&self, fault: Option<Fault>) {
        let mut state = self.state();
        state.fault = fault;
        state.failed = None;
    }

    /// Does something that no fault meets: those are for who writes.
    pub(crate) fn without_fault<T>(&self, work: impl FnOnce() -> T) -> T {
        let fault = self.state().fault.take();
        let done = work();
        self.state().fault = fault;
        done
    }

    /// The call that failed on demand, since one was asked to.
    pub(crate) fn failed(&self) -> Option<String> {
        self.state().failed.clone()
    }

    pub(crate) fn crash_now(&self) {
        let mut state = self.state();
        if state.crashed.is_none() {
            state.end("at rest".to_owned());
        }
    }

    /// The call during which everything ended, if it has.
    pub(crate) fn crashed(&self) -> Option<String> {
        self.state().crashed.clone()
    }

    pub(crate) fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Leaves nothing for those who still hold this disk.
    fn take_state(&self) -> State {
        let gone = State {
            crashed: Some("long ago".to_owned()),
            ..State::default()
        };
        std::mem::replace(&mut *self.state(), gone)
    }

    /// The disk as the next process finds it after a kill: all that was written is in the page cache,
    /// and no more of it is durable.
    pub(crate) fn after_kill(&self) -> Self {
        let mut state = self.take_state();
        state.crashed = None;
        state.crash_in = None;
        state.fault = None;
        let named: BTreeSet<u64> = state
            .names
            .values()
            .chain(state.durable_names.values())
            .copied()
            .collect();
        state.files.retain(|inode, _| named.contains(inode));
        Self::of(state)
    }

    /// The disk as the next process finds it after a power cut.
    pub(crate) fn after_power_cut(&self, cut: &mut Cut<'_>) -> Self {
        let state = self.take_state();
        let mut names = BTreeMap::new();
        let mut files = BTreeMap::new();
        for (inode, (name, content)) in (1..).zip(cut.survivors(&state)) {
            names.insert(name, inode);
            files.insert(inode, Inode::written(content));
        }
        Self::of(State {
            next_inode: files.len() as u64 + 1,
            files,
            durable_names: names.clone(),
            names,
            attic: state.attic,
            random: state.random,
            write_back_rate: state.write_back_rate,
            hides_locks: state.hides_locks,
            ..State::default()
        })
    }

    /// One call: others take their turns, and then it may be the one that fails, or the last one.
    fn step(&self, action: &'static str, path: &Path) -> Result<(), FileError> {
        thread::yield_now();
        let mut state = self.state();
        let gone = || FileError::new(action, path, Errno::IO);
        if state.crashed.is_some() {
            return Err(gone());
        }
        state.calls += 1;
        let kind = kind_of(action, path);
        crate::simulation::trace(|| {
            format!("{:?} {action} {}", thread::current().id(), path.display())
        });
        match &mut state.crash_in {
            Some(0) => {
                state.end(kind);
                return Err(gone());
            }
            Some(left) => *left -= 1,
            None => {}
        }
        if let Some(fault) = &mut state.fault
            && errnos_of(action).contains(&fault.errno)
            && fault.kind.is_none_or(|only| only == kind)
        {
            if fault.after == 0 {
                let errno = fault.errno;
                state.fault = None;
                state.failed = Some(kind);
                return Err(FileError::new(action, path, errno));
            }
            fault.after -= 1;
        }
        let rate = state.write_back_rate;
        if state.random.one_in(rate) {
            state.write_back();
        }
        Ok(())
    }

    fn open_at(&self, path: &Path, inode: u64) -> DiskFile {
        DiskFile {
            disk: self.clone(),
            path: path.to_owned(),
            inode: Some(inode),
        }
    }

    fn create_with(&self, path: &Path, truncate: bool) -> Result<DiskFile, FileError> {
        self.step("create", path)?;
        let name = name_of(path);
        let mut state = self.state();
        if let Some(&inode) = state.names.get(&name) {
            if truncate {
                state.inode(inode).resize(0);
            }
            drop(state);
            return Ok(self.open_at(path, inode));
        }
        state.next_inode += 1;
        let inode = state.next_inode;
        state.files.insert(inode, Inode::default());
        state.names.insert(name.clone(), inode);
        state.changes.push(NameChange::Create(name, inode));
        drop(state);
        Ok(self.open_at(path, inode))
    }

    pub(crate) fn create(&self, path: &Path) -> Result<DiskFile, FileError> {
        self.create_with(path, true)
    }

    pub(crate) fn create_if_missing(&self, path: &Path) -> Result<DiskFile, FileError> {
        self.create_with(path, false)
    }

    fn find(&self, action: &'static str, path: &Path) -> Result<u64, FileError> {
        let inode = self.state().names.get(&name_of(path)).copied();
        inode.ok_or_else(|| FileError::new(action, path, io::ErrorKind::NotFound))
    }

    pub(crate) fn open(&self, path: &Path) -> Result<DiskFile, FileError> {
        self.step("open", path)?;
        if path == Path::new(DIR) || Path::new(DIR).starts_with(path) {
            return Ok(DiskFile {
                disk: self.clone(),
                path: path.to_owned(),
                inode: None,
            });
        }
        Ok(self.open_at(path, self.find("open", path)?))
    }

    pub(crate) fn open_writable(&self, path: &Path) -> Result<DiskFile, FileError> {
        self.open(path)
    }

    pub(crate) fn link(&self, from: &Path, to: &Path) -> Result<bool, FileError> {
        self.step("link", to)?;
        let (inode, name) = (self.find("link", from)?, name_of(to));
        let mut state = self.state();
        if state.names.contains_key(&name) {
            return Err(FileError::new("link", to, io::ErrorKind::AlreadyExists));
        }
        state.names.insert(name.clone(), inode);
        state.changes.push(NameChange::Create(name, inode));
        Ok(true)
    }

    pub(crate) fn remove(&self, path: &Path) -> Result<(), FileError> {
        self.step("remove", path)?;
        let name = name_of(path);
        let mut state = self.state();
        if state.names.contains_key(&name) {
            state.unlink(&name);
            state.changes.push(NameChange::Remove(name));
        }
        Ok(())
    }

    pub(crate) fn create_dir(&self, path: &Path) -> Result<(), FileError> {
        self.step("create", path)
    }

    /// The directory's own name is not modelled.
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "a real disk syncs it"
    )]
    pub(crate) fn sync_own_name(&self, _: &Path) -> Result<(), FileError> {
        Ok(())
    }

    pub(crate) fn is_dir(&self, path: &Path) -> Result<Option<bool>, FileError> {
        self.step("stat", path)?;
        Ok((path == Path::new(DIR)).then_some(true))
    }

    pub(crate) fn inode(&self, path: &Path) -> Result<u64, FileError> {
        self.step("stat", path)?;
        self.find("stat", path)
    }

    pub(crate) fn sync_dir(&self, path: &Path) -> Result<(), FileError> {
        self.open(path)?.sync_names()
    }

    pub(crate) fn list(&self, path: &Path) -> Result<Vec<OsString>, FileError> {
        self.step("list", path)?;
        Ok(self.state().names.keys().map(OsString::from).collect())
    }

    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>, FileError> {
        self.step("read", path)?;
        if path == Path::new("/proc/locks") {
            return Ok(self.state().locks().into_bytes());
        }
        let inode = self.find("read", path)?;
        Ok(self.state().inode(inode).content())
    }

    pub(crate) fn random_u32(&self) -> u32 {
        if !guard::stands(Guard::ChecksumSalt) {
            return 0;
        }
        u32::try_from(self.state().random.next() >> 32).expect("shifted")
    }

    #[expect(clippy::unnecessary_wraps, reason = "a real disk can fail here")]
    pub(crate) fn overwrites_in_place(&self, _: &Path) -> Result<bool, FileError> {
        Ok(true)
    }
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().expect("a file in the directory");
    name.to_string_lossy().into_owned()
}

/// An open file, or the open directory.
#[derive(Debug)]
pub(crate) struct DiskFile {
    disk: Disk,
    path: PathBuf,
    inode: Option<u64>,
}

impl DiskFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inode) -> T) -> T {
        let inode = self.inode.expect("not the directory");
        work(self.disk.state().inode(inode))
    }

    fn step(&self, action: &'static str) -> Result<(), FileError> {
        self.disk.step(action, &self.path)
    }

    pub(crate) fn rename(&mut self, to: &Path) -> Result<(), FileError> {
        self.step("rename")?;
        let (from, name) = (name_of(&self.path), name_of(to));
        let mut state = self.disk.state();
        state.unlink(&name);
        let inode = state.names.remove(&from).expect("a name to change");
        state.names.insert(name.clone(), inode);
        state.changes.push(NameChange::Rename(from, name, inode));
        drop(state);
        self.path = to.to_owned();
        Ok(())
    }

    pub(crate) fn bytes(&self) -> Result<u64, FileError> {
        self.step("stat")?;
        Ok(self.with(|inode| inode.len as u64))
    }

    pub(crate) fn is_linked(&self) -> Result<bool, FileError> {
        self.step("stat")?;
        let state = self.disk.state();
        Ok(state.names.values().any(|&inode| Some(inode) == self.inode))
    }

    pub(crate) fn read_at(&self, into: &mut [u8], position: u64) -> Result<(), FileError> {
        self.step("read")?;
        let position = usize::try_from(position).expect("a small file");
        self.with(|inode| {
            if position + into.len() > inode.len {
                return Err(FileError::new(
                    "read",
                    &self.path,
                    io::ErrorKind::UnexpectedEof,
                ));
            }
            inode.memory.read(position, into);
            Ok(())
        })
    }

    pub(crate) fn write_at(&self, bytes: &[u8], position: u64) -> Result<(), FileError> {
        let position = usize::try_from(position).expect("a small file");
        let allowed = self.step("write");
        if allowed.is_err() && self.disk.crashed().is_some() {
            return allowed;
        }
        // A call that fails may have written some pages before it, and nothing of the one at hand.
        let done = match &allowed {
            Ok(()) => bytes.len(),
            Err(_) => {
                let pages = (position + bytes.len() - 1) / PAGE_BYTES - position / PAGE_BYTES;
                match self.disk.state().random.index(pages + 1) {
                    0 => 0,
                    n => (position / PAGE_BYTES + n) * PAGE_BYTES - position,
                }
            }
        };
        self.with(|inode| inode.write(&bytes[..done], position));
        allowed
    }

    pub(crate) fn allocate(&self, bytes: u64) -> Result<bool, FileError> {
        self.step("allocate")?;
        let bytes = usize::try_from(bytes).expect("a small file");
        self.with(|inode| {
            if bytes > inode.len {
                inode.resize(bytes);
            }
            inode.holes.clear();
        });
        Ok(true)
    }

    pub(crate) fn share_blocks_of(&self, _: &Self) -> Result<bool, FileError> {
        self.step("share blocks with")?;
        Ok(false)
    }

    pub(crate) fn write_zeroes(&self, from: u64, to: u64) -> Result<(), FileError> {
        let len = usize::try_from(to - from).expect("a small file");
        self.write_at(&vec![0; len], from)
    }

    pub(crate) fn punch_hole(&self, from: u64, to: u64) -> Result<(), FileError> {
        if from >= to {
            return Ok(());
        }
        self.write_zeroes(from, to)?;
        let page = |position: u64| usize::try_from(position).expect("a small file") / PAGE_BYTES;
        self.with(|inode| inode.holes.extend(page(from)..page(to)));
        Ok(())
    }

    /// What was written before the call is durable behind it; what is written meanwhile may be.
    pub(crate) fn sync_data(&self) -> Result<(), FileError> {
        if let Err(failure) = self.step("sync") {
            if self.disk.crashed().is_none() {
                self.with(Inode::fail_to_persist);
            }
            return Err(failure);
        }
        let (begun, write_backs) = self.with(|inode| (inode.content(), inode.write_backs));
        thread::yield_now();
        if self.disk.crashed().is_some() {
            return Err(FileError::new("sync", &self.path, Errno::IO));
        }
        self.with(|inode| {
            let newer = inode.write_backs > write_backs || inode.len != begun.len();
            let content = if newer { inode.content() } else { begun };
            inode.persist(&content, || true);
        });
        Ok(())
    }

    pub(crate) fn sync_names(&self) -> Result<(), FileError> {
        self.step("sync")?;
        if guard::stands(Guard::DirectorySync) && self.path == Path::new(DIR) {
            self.disk.state().sync_names();
        }
        Ok(())
    }

    pub(crate) fn evict(&self, from: u64) -> Result<(), FileError> {
        self.step("evict")?;
        let from = usize::try_from(from).expect("a small file");
        self.with(|inode| inode.evict(from));
        Ok(())
    }

    fn map_with<T>(&self, capacity: usize, map: impl FnOnce(&Inode) -> T) -> Result<T, FileError> {
        self.step("map")?;
        Ok(self.with(|inode| {
            assert!(capacity <= inode.len, "mapped behind its end");
            map(inode)
        }))
    }

    pub(crate) fn map_sealed(&self, capacity: usize) -> Result<Map, FileError> {
        self.map_with(capacity, |inode| inode.memory.map(capacity, capacity))
    }

    pub(crate) fn map_writable(
        &self,
        capacity: usize,
        published: usize,
    ) -> Result<Frontier, FileError> {
        self.map_with(capacity, |inode| {
            let hole = inode.holes.range(published / PAGE_BYTES..).next();
            assert_eq!(hole, None, "a store into a hole can be a SIGBUS");
            inode.memory.grow_from(capacity, published, true)
        })
    }

    pub(crate) fn map_growing(
        &self,
        capacity: usize,
        published: usize,
    ) -> Result<Frontier, FileError> {
        self.map_with(capacity, |inode| {
            inode.memory.grow_from(capacity, published, false)
        })
    }

    pub(crate) fn try_lock(&self) -> Result<bool, FileError> {
        self.step("lock")?;
        let inode = self.inode.expect("not the directory");
        Ok(self.disk.state().locked.insert(inode))
    }

    pub(crate) fn unlock(&self) -> Result<(), FileError> {
        let inode = self.inode.expect("not the directory");
        self.disk.state().locked.remove(&inode);
        Ok(())
    }
}
