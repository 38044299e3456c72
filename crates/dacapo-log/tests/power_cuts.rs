//! Power cuts and kills at random moments, on a simulated disk that loses what was not synced.
//!
//! This program's `fsync` and `fdatasync` stand in for the C library's. They sync nothing, and note
//! what is durable from then on; a crash at any of them, inside recovery and closing too, is an
//! image of the directory in which everything else is old, new, torn or lost at random.
//!
//! By hand, for longer or to see one seed again (threads of the log keep their own time, so a
//! failure may take a few runs to return; the image that failed is kept, and its path printed):
//!
//! ```text
//! DACAPO_POWER_CUT_SEEDS=100000 DACAPO_POWER_CUT_FIRST_SEED=1 \
//!     cargo test --release -p dacapo-log --test power_cuts -- --nocapture
//! ```
#![expect(unsafe_code, reason = "two exported names; nothing unsafe is called")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::c_int;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use dacapo_log::{
    AppendError, Checkpoint, Flush, Log, Offset, Options, ReadError, Start, WritePath, verify,
};

const SEEDS: u64 = 300;
const SECTOR_BYTES: usize = 512;
const SECTORS_PER_PAGE: usize = 8;

// --- Random numbers ---------------------------------------------------------------

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap()
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len.div_ceil(8))
            .flat_map(|_| self.next().to_le_bytes())
            .collect();
        bytes.truncate(len);
        bytes
    }
}

// --- The disk -----------------------------------------------------------------------

type Content = Arc<Vec<u8>>;

/// What a directory holds for certain, whatever happens.
#[derive(Clone, Default)]
struct Durable {
    /// Which inode a name stands for, as of the last sync of the directory.
    names: BTreeMap<String, u64>,
    /// Each inode's content, as of its last sync.
    contents: HashMap<u64, Content>,
}

/// A directory at the moment of a crash.
struct Crash {
    durable: Durable,
    /// As running programs see it: inode and content of each name.
    live: BTreeMap<String, (u64, Content)>,
    /// Records that were reported as durable.
    acknowledged: u64,
    /// Records whose append had returned.
    appended: u64,
    /// No thread that appends was running: `live` is of one moment.
    at_rest: bool,
}

/// A directory whose syncs are watched.
struct Disk {
    dir: PathBuf,
    state: Mutex<State>,
    let_go: Condvar,
}

#[derive(Default)]
struct State {
    durable: Durable,
    acknowledged: u64,
    appended: u64,
    /// Flushes in the background take forever.
    slow: bool,
    /// Crash at the sync after so many.
    crash_in: Option<u64>,
    crashed: Option<Crash>,
}

static DISKS: Mutex<Vec<Arc<Disk>>> = Mutex::new(Vec::new());

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends a slow flush.
struct LetGo<'a>(&'a Disk);

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        self.0.be_slow(false);
    }
}

impl Disk {
    fn new(dir: &Path, durable: Durable) -> Arc<Self> {
        let state = State {
            durable,
            ..State::default()
        };
        let disk = Arc::new(Self {
            dir: dir.to_owned(),
            state: Mutex::new(state),
            let_go: Condvar::new(),
        });
        locked(&DISKS).push(Arc::clone(&disk));
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    fn be_slow(&self, slow: bool) {
        self.state().slow = slow;
        self.let_go.notify_all();
    }

    /// What a crash right now would find.
    fn crash(&self, state: &State, at_rest: bool) -> Crash {
        Crash {
            live: self.live(),
            durable: state.durable.clone(),
            acknowledged: state.acknowledged,
            appended: state.appended,
            at_rest,
        }
    }

    fn live(&self) -> BTreeMap<String, (u64, Content)> {
        let mut live = BTreeMap::new();
        for entry in fs::read_dir(&self.dir).unwrap() {
            let entry = entry.unwrap();
            // Temporary files come and go while the log works.
            if let (Ok(inode), Ok(bytes)) = (inode(&entry.path()), fs::read(entry.path())) {
                let name = entry.file_name().into_string().unwrap();
                live.insert(name, (inode, Arc::new(bytes)));
            }
        }
        live
    }

    /// Something of the directory is being synced: the log's own thread, or the caller's, waits.
    fn synced(&self, file: &Path, is_dir: bool) {
        let flushing = thread::current().name() == Some("dacapo-flush");
        let preparing = thread::current().name() == Some("dacapo-prepare");
        let mut state = self.state();
        match &mut state.crash_in {
            Some(0) => {
                state.crash_in = None;
                let crash = self.crash(&state, !flushing && !preparing);
                state.crashed = Some(crash);
            }
            Some(left) => *left -= 1,
            None => {}
        }
        while flushing && state.slow {
            state = self
                .let_go
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if is_dir {
            let names = fs::read_dir(&self.dir).unwrap().filter_map(|entry| {
                let entry = entry.ok()?;
                let inode = inode(&entry.path()).ok()?;
                Some((entry.file_name().into_string().ok()?, inode))
            });
            state.durable.names = names.collect();
        } else {
            let content = Arc::new(fs::read(file).unwrap());
            state.durable.contents.insert(inode(file).unwrap(), content);
        }
    }
}

fn inode(path: &Path) -> std::io::Result<u64> {
    Ok(fs::metadata(path)?.ino())
}

/// Notes a sync of a file or directory, if it is of a disk that is watched.
fn note_sync(fd: c_int) -> c_int {
    let opened = PathBuf::from(format!("/proc/self/fd/{fd}"));
    let Ok(path) = fs::read_link(&opened) else {
        return 0;
    };
    let is_dir = path.is_dir();
    let dir = if is_dir { Some(&*path) } else { path.parent() };
    let disk = locked(&DISKS)
        .iter()
        .find(|disk| Some(&*disk.dir) == dir)
        .cloned();
    if let Some(disk) = disk {
        disk.synced(&opened, is_dir);
    }
    0
}

// SAFETY: the C library's function of this name has this signature, and this whole test program
// expects of it only what `note_sync` does.
#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    note_sync(fd)
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    note_sync(fd)
}

// --- What a crash leaves --------------------------------------------------------------

type Image = BTreeMap<String, Content>;

/// What becomes of a sector that was written and not synced.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Old,
    New,
    Zero,
    Garbage,
    /// So many bytes of the new content, then the old.
    Torn(usize),
}

/// How a power cut picks fates.
#[derive(Clone, Copy, PartialEq)]
enum Weather {
    /// Nothing reached the disk.
    AllOld,
    /// Everything did.
    AllNew,
    /// Everything but this one, counted over all files.
    OneLost(usize),
    /// Everything before this one, and nothing behind it.
    Until(usize),
    /// So many of ten did.
    Mixed(u64),
}

#[derive(Default)]
struct Coverage {
    cuts: u64,
    kills: u64,
    crashes_in_recovery: u64,
    crashes_in_a_sync: u64,
    sectors_lost: u64,
    sectors_torn: u64,
    names_lost: u64,
    records_lost: u64,
    batches_lost: u64,
    records_checked: u64,
    rewound: u64,
    segments_most: u64,
}

impl Coverage {
    fn add(&mut self, other: &Self) {
        self.cuts += other.cuts;
        self.kills += other.kills;
        self.crashes_in_recovery += other.crashes_in_recovery;
        self.crashes_in_a_sync += other.crashes_in_a_sync;
        self.sectors_lost += other.sectors_lost;
        self.sectors_torn += other.sectors_torn;
        self.names_lost += other.names_lost;
        self.records_lost += other.records_lost;
        self.batches_lost += other.batches_lost;
        self.records_checked += other.records_checked;
        self.rewound += other.rewound;
        self.segments_most = self.segments_most.max(other.segments_most);
    }
}

impl Crash {
    /// What a power cut leaves.
    fn power_cut(&self, random: &mut Random, coverage: &mut Coverage) -> Image {
        let mut files = self.surviving_names(random, coverage);
        let sectors: Vec<(String, usize)> = files
            .iter()
            .flat_map(|(name, (old, new))| {
                let differs = |&i: &usize| sector(old, i) != sector(new, i);
                let sectors = 0..new.len().div_ceil(SECTOR_BYTES);
                sectors.filter(differs).map(|i| (name.clone(), i))
            })
            .collect();
        let weather = match random.below(10) {
            0 => Weather::AllOld,
            1 => Weather::AllNew,
            2 | 3 => Weather::OneLost(random.index(sectors.len().max(1))),
            4 | 5 => Weather::Until(random.index(sectors.len().max(1))),
            _ => Weather::Mixed(random.below(11)),
        };
        let whole_pages = random.one_in(4);
        let mut last: Option<(&str, usize, Fate)> = None;
        let mut images: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        for (n, (name, i)) in sectors.iter().enumerate() {
            let fate = match (weather, last) {
                (Weather::Mixed(_), Some((file, page, fate)))
                    if whole_pages && file == name && page == i / SECTORS_PER_PAGE =>
                {
                    fate
                }
                _ => fate_of(weather, n, random),
            };
            last = Some((name, i / SECTORS_PER_PAGE, fate));
            coverage.sectors_lost += u64::from(fate != Fate::New);
            coverage.sectors_torn += u64::from(matches!(fate, Fate::Torn(_) | Fate::Garbage));
            let (old, new) = &files[name];
            let image = images.entry(name).or_insert_with(|| new.to_vec());
            let range = i * SECTOR_BYTES..((i + 1) * SECTOR_BYTES).min(image.len());
            let left = outcome(fate, sector(old, *i), &new[range.clone()], random);
            image[range].copy_from_slice(&left);
        }
        let images: BTreeMap<String, Vec<u8>> = images
            .into_iter()
            .map(|(name, bytes)| (name.to_owned(), bytes))
            .collect();
        for (name, bytes) in images {
            files.get_mut(&name).unwrap().1 = Arc::new(bytes);
        }
        files
            .into_iter()
            .map(|(name, (_, image))| (name, image))
            .collect()
    }

    /// Which names are there, each with the content that it had for certain, and as it was written.
    fn surviving_names(
        &self,
        random: &mut Random,
        coverage: &mut Coverage,
    ) -> BTreeMap<String, (Content, Content)> {
        let names: BTreeSet<&String> = self.durable.names.keys().chain(self.live.keys()).collect();
        // Of ten changed names, so many are as they were.
        let names_old = [0, 5, 10][random.index(3)];
        let mut files = BTreeMap::new();
        for name in names {
            let old = self.durable.names.get(name).copied();
            let new = self.live.get(name).map(|(inode, _)| *inode);
            let mut inode = new;
            if old != new && random.below(10) < names_old {
                coverage.names_lost += 1;
                inode = old;
            }
            let Some(inode) = inode else { continue };
            let certain = self.durable.contents.get(&inode).cloned();
            let written = self.live.values().find(|(live, _)| *live == inode);
            let written = written.map(|(_, content)| Arc::clone(content));
            let (old, new) = match (certain, written) {
                (Some(certain), Some(written)) => (certain, written),
                (Some(certain), None) => (Arc::clone(&certain), certain),
                // Never synced: of any length.
                (None, Some(written)) => {
                    let len = match random.below(3) {
                        0 => 0,
                        1 => random.index(written.len() + 1),
                        _ => written.len(),
                    };
                    (Arc::default(), Arc::new(written[..len].to_vec()))
                }
                (None, None) => continue,
            };
            files.insert(name.clone(), (old, new));
        }
        files
    }

    /// What a kill leaves: everything that was written, and of that nothing more is durable.
    fn kill(&self) -> Image {
        let file =
            |(name, (_, content)): (&String, &(u64, Content))| (name.clone(), Arc::clone(content));
        self.live.iter().map(file).collect()
    }

    /// What is durable of the copies that a kill's image became.
    fn durable_after_kill(&self, dir: &Path) -> Durable {
        let mut copies: HashMap<u64, u64> = HashMap::new();
        for (name, (old, _)) in &self.live {
            copies.insert(*old, inode(&dir.join(name)).unwrap());
        }
        // An inode that has no name left keeps a number that no copy has.
        let copy_of = |old: u64| copies.get(&old).copied().unwrap_or(u64::MAX - old);
        let name = |(name, old): (&String, &u64)| (name.clone(), copy_of(*old));
        let content = |(old, content): (&u64, &Content)| (copy_of(*old), Arc::clone(content));
        Durable {
            names: self.durable.names.iter().map(name).collect(),
            contents: self.durable.contents.iter().map(content).collect(),
        }
    }
}

fn sector(bytes: &[u8], i: usize) -> &[u8] {
    let end = ((i + 1) * SECTOR_BYTES).min(bytes.len());
    bytes.get(i * SECTOR_BYTES..end).unwrap_or_default()
}

fn fate_of(weather: Weather, n: usize, random: &mut Random) -> Fate {
    let arrives = match weather {
        Weather::AllOld => return Fate::Old,
        Weather::AllNew => return Fate::New,
        Weather::OneLost(lost) => n != lost,
        Weather::Until(last) if n > last => return Fate::Old,
        Weather::Until(last) => n < last,
        Weather::Mixed(of_ten) => random.below(10) < of_ten,
    };
    if arrives {
        return Fate::New;
    }
    match random.below(8) {
        0 => Fate::Zero,
        1 => Fate::Garbage,
        2 => Fate::Torn(SECTOR_BYTES / 2),
        3 => Fate::Torn(random.index(SECTOR_BYTES / 8) * 8),
        4 => Fate::Torn(random.index(SECTOR_BYTES)),
        _ => Fate::Old,
    }
}

fn outcome(fate: Fate, old: &[u8], new: &[u8], random: &mut Random) -> Vec<u8> {
    let mut old = old.to_vec();
    old.resize(new.len(), 0);
    match fate {
        Fate::Old => old,
        Fate::New => new.to_vec(),
        Fate::Zero => vec![0; new.len()],
        Fate::Garbage => random.bytes(new.len()),
        Fate::Torn(at) => {
            let at = at.min(new.len());
            [&new[..at], &old[at..]].concat()
        }
    }
}

/// Writes an image into a new directory.
fn store(image: &Image, dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    for (name, content) in image {
        fs::write(dir.join(name), &**content).unwrap();
    }
}

/// All of an image is durable.
fn durable_image(image: &Image, dir: &Path) -> Durable {
    let mut durable = Durable::default();
    for (name, content) in image {
        let inode = inode(&dir.join(name)).unwrap();
        durable.names.insert(name.clone(), inode);
        durable.contents.insert(inode, Arc::clone(content));
    }
    durable
}

// --- The log's life -------------------------------------------------------------------

/// What the log should hold.
#[derive(Default)]
struct Model {
    payloads: Vec<Vec<u8>>,
    batches: Vec<Range<u64>>,
    /// Checkpoints, each with the first offset that a crash undid since.
    checkpoints: Vec<(Checkpoint, u64)>,
}

impl Model {
    fn len(&self) -> u64 {
        self.payloads.len() as u64
    }

    fn cut(&mut self, survivors: u64, coverage: &mut Coverage) {
        coverage.records_lost += self.len() - survivors;
        self.payloads.truncate(usize::try_from(survivors).unwrap());
        let before = self.batches.len();
        self.batches.retain(|batch| batch.end <= survivors);
        coverage.batches_lost += (before - self.batches.len()) as u64;
        for (_, undone) in &mut self.checkpoints {
            *undone = survivors.min(*undone);
        }
    }
}

/// What was crashed, for whoever looks into a failure.
struct Evidence {
    seed: u64,
    generation: u64,
    image: Image,
}

impl Drop for Evidence {
    fn drop(&mut self) {
        if thread::panicking() {
            let (seed, generation) = (self.seed, self.generation);
            let kept = std::env::temp_dir().join(format!("dacapo-power-cut-{seed}-{generation}"));
            let _ = fs::remove_dir_all(&kept);
            store(&self.image, &kept);
            eprintln!(
                "seed {seed}, generation {generation}: the image that was opened is in {}",
                kept.display()
            );
        }
    }
}

/// What is known of an image before it is opened.
struct Before {
    /// Records that must be there.
    kept: u64,
    /// Of these, those that a power cut may not take either.
    acknowledged: u64,
    /// What the image itself shows as durable.
    promised: u64,
    all_durable: bool,
}

struct Life {
    random: Random,
    model: Model,
    coverage: Coverage,
    options: Options,
    evidence: Evidence,
    /// Removed with the test.
    root: tempfile::TempDir,
}

/// In memory where there is such a place.
fn scratch() -> tempfile::TempDir {
    let builder = tempfile::Builder::new();
    builder
        .tempdir_in("/dev/shm")
        .or_else(|_| builder.tempdir())
        .unwrap()
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ 0xDACA_9000);
        let max = (16 << 10) + random.below(13) * 4096;
        let write_path = [WritePath::Mapped, WritePath::File][random.index(2)];
        let options = Log::options()
            .segment_bytes_min(16 << 10)
            .segment_bytes_max(max)
            .flush(Flush::OnDemand)
            .write_path(write_path);
        Self {
            random,
            model: Model::default(),
            coverage: Coverage::default(),
            options,
            evidence: Evidence {
                seed,
                generation: 0,
                image: Image::new(),
            },
            root: scratch(),
        }
    }

    fn live(mut self) -> Coverage {
        let generations = 4 + self.random.below(5);
        let mut image = Image::new();
        let mut dir = self.root.path().join("0");
        fs::create_dir(&dir).unwrap();
        let mut durable = Durable::default();
        // What the last crash may not take, and where recovery has ended before.
        let (mut kept, mut acknowledged, mut ended) = (0, 0, None);
        for generation in 1..=generations {
            self.evidence.generation = generation;
            self.evidence.image = image.clone();
            let all_durable = durable.names.len() == image.len()
                && image.iter().all(|(name, content)| {
                    let inode = durable.names.get(name);
                    inode.and_then(|i| durable.contents.get(i)) == Some(content)
                });
            let promised = self.look_at(&dir, kept, generation > 1);
            let disk = Disk::new(&dir, durable);
            let crash = self.one_generation(
                &disk,
                &Before {
                    kept,
                    acknowledged,
                    promised,
                    all_durable,
                },
                &mut ended,
            );
            acknowledged = crash.acknowledged;
            locked(&DISKS).retain(|other| !Arc::ptr_eq(other, &disk));
            fs::remove_dir_all(&dir).unwrap();
            dir = self.root.path().join(generation.to_string());
            if crash.at_rest && self.random.one_in(4) {
                self.coverage.kills += 1;
                image = crash.kill();
                store(&image, &dir);
                durable = crash.durable_after_kill(&dir);
                kept = crash.appended;
            } else {
                self.coverage.cuts += 1;
                image = crash.power_cut(&mut self.random, &mut self.coverage);
                store(&image, &dir);
                durable = durable_image(&image, &dir);
                kept = crash.acknowledged;
            }
        }
        std::mem::take(&mut self.coverage)
    }

    /// Reads what a crash left, before any recovery. Returns the durable watermark shown there.
    fn look_at(&mut self, dir: &Path, kept: u64, is_log: bool) -> u64 {
        if !is_log {
            return 0;
        }
        let log = match Log::options().open_read_only(dir) {
            Ok(log) => log,
            Err(error) if kept == 0 => {
                // A log that is not there yet.
                assert!(
                    matches!(error, dacapo_log::OpenError::NotFound { .. }),
                    "a crash image cannot be read: {error}"
                );
                return 0;
            }
            Err(error) => panic!("a crash image cannot be read: {error}"),
        };
        let mut replay = log.replay(Start::Oldest);
        let (mut next, mut errors, mut seen) = (0, 0, 0);
        loop {
            match replay.next() {
                Some(Ok(record)) => {
                    let offset = record.offset().get();
                    assert!(offset >= next, "record {offset} comes behind {next}");
                    assert!(offset < self.model.len(), "record {offset} is from nowhere");
                    assert!(
                        record.payload() == self.model.payloads[usize::try_from(offset).unwrap()],
                        "record {offset} is a wrong one, read-only"
                    );
                    next = offset + 1;
                    seen += u64::from(offset < kept);
                }
                Some(Err(_)) => {
                    replay.skip_damage();
                    errors += 1;
                    assert!(errors < 10_000, "skipping damage moves on");
                }
                None => break,
            }
        }
        assert!(
            seen == kept,
            "of {kept} kept records, {seen} can be read before the recovery"
        );
        let promised = log.durable_offset().get();
        drop(log);
        verify(dir, |_| ()).expect("what can be opened can be verified");
        promised
    }

    fn one_generation(
        &mut self,
        disk: &Arc<Disk>,
        before: &Before,
        ended: &mut Option<u64>,
    ) -> Crash {
        let &Before {
            kept,
            acknowledged,
            promised,
            all_durable,
        } = before;
        {
            let mut state = disk.state();
            // Until recovery says more.
            (state.acknowledged, state.appended) = (acknowledged, kept);
            state.crash_in = (self.random.one_in(3)).then(|| self.random.below(14));
        }
        let log = self
            .options
            .open(&disk.dir)
            .unwrap_or_else(|error| panic!("a crash image does not open: {error}"));
        let survivors = self.check(&log, kept);
        assert!(
            promised <= survivors,
            "record {survivors} was shown as durable and is gone, of {promised}"
        );
        if let Some(before) = ended.take() {
            assert_eq!(before, survivors, "an interrupted recovery ended elsewhere");
        }
        let crashed = disk.state().crashed.take();
        if let Some(crash) = crashed {
            // What this recovery cut was never seen to be cut: only the next one decides.
            self.coverage.crashes_in_recovery += 1;
            *ended = all_durable.then_some(survivors);
            drop(log);
            return crash;
        }
        self.model.cut(survivors, &mut self.coverage);
        self.check_checkpoints(&log);
        self.note(disk, &log);
        self.work(disk, log)
    }

    fn check(&mut self, log: &Log, kept: u64) -> u64 {
        let survivors = log.next_offset().get();
        assert!(
            survivors >= kept,
            "{kept} records were to be kept, {survivors} were"
        );
        assert!(survivors <= self.model.len(), "records from nowhere");
        assert_eq!(log.durable_offset().get(), survivors);
        let mut expected = 0;
        for record in log.replay(Start::Oldest) {
            let record = record.unwrap_or_else(|error| panic!("a recovered record: {error}"));
            assert_eq!(record.offset().get(), expected, "offsets are dense");
            assert!(
                record.payload() == self.model.payloads[usize::try_from(expected).unwrap()],
                "record {expected} is a wrong one"
            );
            expected += 1;
        }
        assert_eq!(expected, survivors);
        self.coverage.records_checked += survivors;
        let torn = self
            .model
            .batches
            .iter()
            .find(|batch| batch.start < survivors && survivors < batch.end);
        assert_eq!(
            torn, None,
            "a batch is all or nothing; {survivors} are left"
        );
        survivors
    }

    /// Who was ahead of what a crash left is told where to go on.
    fn check_checkpoints(&mut self, log: &Log) {
        for (checkpoint, undone) in &self.model.checkpoints {
            let first = log.replay(Start::Resume(*checkpoint)).next();
            if *undone < checkpoint.offset.get() {
                self.coverage.rewound += 1;
                let Some(Err(ReadError::Rewound { resume_at, .. })) = first else {
                    panic!("{checkpoint:?} was not rewound to {undone}");
                };
                assert_eq!(resume_at, Offset::new(*undone));
            } else {
                assert!(!matches!(first, Some(Err(_))), "{checkpoint:?}: {first:?}");
            }
        }
        let checkpoint = log.tail(Start::Latest).checkpoint();
        self.model.checkpoints.push((checkpoint, u64::MAX));
    }

    /// Tells the disk what a crash may not take from now on.
    fn note(&self, disk: &Disk, log: &Log) {
        // First what is durable, so that the crash that reads it is a later one.
        let durable = log.durable_offset().get();
        let mut state = disk.state();
        state.acknowledged = state.acknowledged.max(durable);
        state.appended = self.model.len();
    }

    /// Uses the log until it crashes.
    fn work(&mut self, disk: &Arc<Disk>, mut log: Log) -> Crash {
        if self.random.one_in(2) {
            disk.state().crash_in = Some(self.random.below(20));
        }
        // Closing waits for the flush that runs, also when an assertion has failed.
        let _let_go = LetGo(disk);
        disk.be_slow(self.random.one_in(2));
        let steps = self.random.below(60);
        let syncs_in = [3, 10, 40][self.random.index(3)];
        for _ in 0..steps {
            match self.random.below(40) {
                0 => {
                    disk.be_slow(false);
                    log.close().unwrap();
                    self.note(disk, &log);
                    drop(log);
                    if disk.state().crashed.is_none() {
                        self.check_closed(&disk.dir);
                    }
                    log = self.options.open(&disk.dir).unwrap();
                    if disk.state().crashed.is_none() {
                        assert_eq!(log.next_offset().get(), self.model.len());
                    }
                }
                1..8 => self.append_batch(&log),
                _ => self.append_one(&log),
            }
            self.note(disk, &log);
            if self.random.one_in(syncs_in) {
                disk.be_slow(false);
                log.sync().unwrap();
                self.note(disk, &log);
                disk.be_slow(self.random.one_in(2));
            }
            if self.random.one_in(16) {
                let checkpoint = log.tail(Start::Latest).checkpoint();
                self.model.checkpoints.push((checkpoint, u64::MAX));
            }
            if disk.state().crashed.is_some() {
                break;
            }
        }
        let segments = log.status().unwrap().segments as u64;
        self.coverage.segments_most = self.coverage.segments_most.max(segments);
        let mut state = disk.state();
        state.crash_in = None;
        let in_a_sync = state.crashed.take();
        self.coverage.crashes_in_a_sync += u64::from(in_a_sync.is_some());
        let crash = in_a_sync.unwrap_or_else(|| disk.crash(&state, true));
        drop(state);
        disk.be_slow(false);
        crash
    }

    /// A closed log is sound, its derived files included.
    fn check_closed(&self, dir: &Path) {
        let found = verify(dir, |_| ()).unwrap();
        assert_eq!(found.records, self.model.len());
        assert_eq!((found.lost, found.damages), (vec![], vec![]));
    }

    fn payload(&mut self, len: usize) -> Vec<u8> {
        let mut payload = match self.random.below(4) {
            0 => vec![0; len],
            // Words that begin a frame, and that pad.
            1 => {
                let kind = 1 + self.random.below(4);
                let word = 0xDC_u64 << 56 | kind << 40 | self.random.below(64);
                word.to_le_bytes().repeat(len.div_ceil(8))
            }
            _ => self.random.bytes(len),
        };
        payload.truncate(len);
        // No two are the same, if there is room to say so.
        let id = self.random.next().to_le_bytes();
        let said = len.min(id.len());
        payload[..said].copy_from_slice(&id[..said]);
        payload
    }

    fn append_one(&mut self, log: &Log) {
        let len = match self.random.below(3) {
            0 => self.random.index(40),
            1 => self.random.index(600),
            _ => self.random.index(3000),
        };
        let payload = self.payload(len);
        let offset = Offset::new(self.model.len());
        // Before it is appended: a crash may find it on its way.
        self.model.payloads.push(payload.clone());
        assert_eq!(log.append(&payload).unwrap(), offset);
    }

    fn append_batch(&mut self, log: &Log) {
        let count = 1 + self.random.index(20);
        let longest = 1 + self.random.index(6000 / count);
        let payloads: Vec<Vec<u8>> = (0..count)
            .map(|_| {
                let len = self.random.index(longest);
                self.payload(len)
            })
            .collect();
        let start = self.model.len();
        self.model.payloads.extend_from_slice(&payloads);
        self.model.batches.push(start..self.model.len());
        match log.append_batch(&payloads) {
            Ok(offsets) => assert_eq!(offsets.start, Offset::new(start)),
            Err(AppendError::TooLarge { .. }) => {
                self.model
                    .payloads
                    .truncate(usize::try_from(start).unwrap());
                self.model.batches.pop();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

#[test]
fn no_crash_takes_what_is_durable_or_brings_back_what_it_took() {
    let seeds = setting("DACAPO_POWER_CUT_SEEDS", SEEDS);
    let first = setting("DACAPO_POWER_CUT_FIRST_SEED", 1);
    let started = Instant::now();
    let next = AtomicU64::new(first);
    let total = Mutex::new(Coverage::default());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= first + seeds {
                        break;
                    }
                    locked(&total).add(&Life::new(seed).live());
                }
            });
        }
    });
    let total = locked(&total);
    let Coverage {
        cuts,
        kills,
        crashes_in_recovery,
        crashes_in_a_sync,
        sectors_lost,
        sectors_torn,
        names_lost,
        records_lost,
        batches_lost,
        records_checked,
        rewound,
        segments_most,
    } = &*total;
    println!(
        "{seeds} seeds, {:.0} a second: {cuts} power cuts and {kills} kills, of which \
         {crashes_in_recovery} in a recovery and {crashes_in_a_sync} in another sync; \
         {sectors_lost} sectors lost, {sectors_torn} of them torn, {names_lost} names lost; \
         {records_lost} records and {batches_lost} batches undone, {rewound} checkpoints rewound, \
         {records_checked} records read back; at most {segments_most} segments",
        seeds as f64 / started.elapsed().as_secs_f64()
    );
    assert!(
        *cuts > 0 && *sectors_lost > 0 && *records_lost > 0,
        "this tests something"
    );
}
