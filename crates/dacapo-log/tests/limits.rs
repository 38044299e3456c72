//! The process runs out of descriptors or of mappings while a log is open: appends are refused, reads
//! and flushes go on, and appends do too once there are some again.
//!
//! The limits are the process's, so these tests have one to themselves, and take turns.

use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use dacapo_log::{AppendError, Log, Offset, OpenError, Start};
use memmap2::{Mmap, MmapOptions};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

static TURN: Mutex<()> = Mutex::new(());

/// Lets `exhaust` take all that is left of something, appends until a segment is full, gives it back,
/// and looks whether anything was lost.
fn run_out_of<T>(
    exhaust: impl FnOnce() -> T,
    while_out: impl FnOnce(&Path),
    give_back: impl FnOnce(T),
) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let small = Log::options().segment_bytes_max(64 << 10).clone();
    let log = small.open(dir.path()).unwrap();
    let mut appended = 0;
    // Past the first roll: another segment may be ready, and is used up below.
    while appended < 100 {
        append(&log, &mut appended).unwrap();
    }
    log.sync().unwrap();

    let held = exhaust();
    let refused = loop {
        assert!(appended < 10_000, "nothing has run out");
        if let Err(refused) = append(&log, &mut appended) {
            break refused;
        }
    };
    let text = refused.to_string();
    assert!(matches!(refused, AppendError::Prepare { .. }), "{text}");
    assert_eq!(log.sync().unwrap(), Offset::new(appended));
    // The segment that is appended to is mapped; the others take a descriptor, or a mapping.
    let newest = log.get(Offset::new(appended - 1)).unwrap();
    assert_eq!(newest.payload(), payload(appended - 1));
    while_out(dir.path());

    give_back(held);
    append(&log, &mut appended).expect("appends go on without a reopen");
    check(&log, appended);
    drop(log);
    check(&small.open(dir.path()).unwrap(), appended);
}

fn payload(number: u64) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(1000, 7);
    payload
}

fn append(log: &Log, appended: &mut u64) -> Result<(), AppendError> {
    let offset = log.append(&payload(*appended))?;
    assert_eq!(offset, Offset::new(*appended));
    *appended += 1;
    Ok(())
}

fn check(log: &Log, appended: u64) {
    let mut next = 0;
    for record in log.replay(Start::Oldest) {
        let record = record.unwrap();
        assert_eq!(record.offset(), Offset::new(next));
        assert_eq!(record.payload(), payload(next));
        next += 1;
    }
    assert_eq!(next, appended);
}

fn cannot_open_another(beside: &Path) {
    let another = beside.with_extension("another");
    match Log::open(&another) {
        Err(OpenError::Io(error)) => {
            assert!(error.to_string().contains(".another"), "{error}");
        }
        other => panic!("{:?}", other.map(|_| "opened")),
    }
    let _ = std::fs::remove_dir_all(another);
}

#[test]
fn without_a_descriptor_left_appends_are_refused_until_there_is_one() {
    let exhaust = || {
        let limit = getrlimit(Resource::Nofile);
        let lowered = Rlimit {
            current: Some(256),
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, lowered).unwrap();
        let mut files = Vec::with_capacity(256);
        while let Ok(file) = File::open("/dev/null") {
            files.push(file);
        }
        (limit, files)
    };
    run_out_of(exhaust, cannot_open_another, |(limit, _files)| {
        setrlimit(Resource::Nofile, limit).unwrap();
    });
}

#[test]
fn without_a_mapping_left_appends_are_refused_until_there_is_one() {
    // Neighbours are one mapping for the kernel, unless what may be done to them differs.
    let pair = || -> std::io::Result<(Mmap, memmap2::MmapMut)> {
        let mut options = MmapOptions::new();
        let one = options.len(4096);
        Ok((one.map_anon()?.make_read_only()?, one.map_anon()?))
    };
    let exhaust = || {
        // More than the kernel gives a process by default; where it gives more, nothing runs out.
        let mut held = Vec::with_capacity(1 << 20);
        let mut single = Vec::with_capacity(4);
        while held.len() < held.capacity()
            && let Ok(more) = pair()
        {
            held.push(more);
        }
        // What a pair was too much for.
        while single.len() < 4
            && let Ok(one) = MmapOptions::new().len(4096).map_anon()
        {
            single.push(one);
        }
        (held, single)
    };
    // Nothing is opened meanwhile: a thread of the standard library ends the process where it can
    // have no second stack.
    run_out_of(exhaust, |_| (), drop);
}
