//! Cursors across restarts, kills, damage and several processes.
//!
//! For more damage, by hand:
//!
//! ```text
//! DACAPO_CURSOR_FLIPS=5000 cargo test --release -p dacapo --test cursor_store damage
//! ```
#![cfg(feature = "cursors")]

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dacapo::{Cursor, CursorError, CursorNameError, Cursors, Position, StoreNotice};
use dacapo_log::{Checkpoint, Epoch, Log, Offset, Topic};
use tempfile::TempDir;

const LOG_ID: u128 = 0x000d_aca0;
/// Far more than anything here takes: what has not come by then hangs.
const HANGS: Duration = Duration::from_secs(120);

fn at(offset: u64) -> Checkpoint {
    in_epoch(1, offset)
}

fn in_epoch(epoch: u64, offset: u64) -> Checkpoint {
    Checkpoint {
        offset: Offset::new(offset),
        epoch: Epoch::new(epoch),
    }
}

fn opened(dir: &Path) -> Cursors {
    Cursors::open(dir, LOG_ID).unwrap()
}

fn offset_of(cursors: &Cursors, name: &str) -> Option<u64> {
    Some(cursors.get(name)?.checkpoint.offset.get())
}

/// The directory as a process killed now would leave it.
fn as_if_killed(dir: &Path) -> TempDir {
    let left = tempfile::tempdir().unwrap();
    copy(dir, left.path());
    left
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let from = entry.unwrap().path();
        let to = to.join(from.file_name().unwrap());
        if from.is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

/// Puts an older copy of a directory into its place.
fn put_back(older: &Path, dir: &Path) {
    fs::remove_dir_all(dir).unwrap();
    fs::create_dir(dir).unwrap();
    copy(older, dir);
}

/// The list is what a commit changes at once; the store takes it later.
fn copy_list(from: &Path, to: &Path) {
    let list = "cursors.list";
    fs::copy(from.join(list), to.join(list)).unwrap();
}

fn names_in(cursors: &Cursors) -> Vec<String> {
    cursors
        .list()
        .into_iter()
        .map(|cursor| cursor.name)
        .collect()
}

/// All files in a directory, and in those in it.
fn files_in(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(files_in(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

#[test]
fn a_cursor_is_as_it_was_left_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let orders = Topic::new("orders").unwrap();
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let cursors = opened(dir.path());
    assert_eq!(cursors.get("billing"), None);
    let start = Position::new(at(3)).topic(orders.clone()).holds(true);
    cursors.set("billing", start.clone()).unwrap();
    assert_eq!(cursors.get("billing").unwrap().position(), start);
    cursors.set("audit", Position::new(at(0))).unwrap();
    cursors.commit("billing", at(4)).unwrap();
    cursors.commit_durable("billing", in_epoch(2, 5)).unwrap();
    drop(cursors);

    let cursors = opened(dir.path());

    assert_eq!(cursors.notices(), []);
    let billing = cursors.get("billing").unwrap();
    assert_eq!(billing.name, "billing");
    assert_eq!(billing.topic, Some(orders));
    assert_eq!(billing.checkpoint, in_epoch(2, 5));
    assert!(billing.holds);
    assert_eq!(billing.generation, 3);
    assert!(u128::from(billing.committed_micros) >= begun.as_micros());
    assert_eq!(names_in(&cursors), ["audit", "billing"]);
}

#[test]
fn the_cursors_of_a_log_leave_the_log_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    log.append(b"a").unwrap();
    let cursors = Cursors::of(&log).unwrap();
    let end = Checkpoint {
        offset: log.next_offset(),
        epoch: log.epoch(),
    };
    cursors.set("billing", Position::new(end)).unwrap();
    log.close().unwrap();
    drop(log);

    // Another opening of the log, while its cursors are in use.
    let log = Log::open(dir.path()).unwrap();
    assert_eq!(log.append(b"b").unwrap(), Offset::new(1));
    assert_eq!(log.epoch(), end.epoch, "the log was closed cleanly");
    assert_eq!(Cursors::of(&log).unwrap().list(), cursors.list());
    log.close().unwrap();

    let verified = dacapo_log::verify(dir.path(), |_| ()).unwrap();
    assert!(verified.is_sound(), "{verified:?}");
    assert_eq!(verified.records, 2);
}

#[test]
fn a_commit_goes_forward_only_and_a_hand_may_go_back() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = opened(dir.path());
    cursors
        .set("billing", Position::new(in_epoch(2, 7)))
        .unwrap();

    let earlier_offset = cursors.commit("billing", in_epoch(2, 6));
    let earlier_epoch = cursors.commit_durable("billing", in_epoch(1, 9));

    for (refused, to) in [
        (earlier_offset, in_epoch(2, 6)),
        (earlier_epoch, in_epoch(1, 9)),
    ] {
        let error = refused.unwrap_err();
        let CursorError::Backwards {
            name,
            committed,
            requested,
        } = &error
        else {
            panic!("{error:?}")
        };
        assert_eq!((name.as_str(), *committed), ("billing", in_epoch(2, 7)));
        assert_eq!(*requested, to);
        assert!(error.to_string().contains("offset 7"), "{error}");
    }
    assert_eq!(offset_of(&cursors, "billing"), Some(7));
    // The same again, and what a crash has undone and is there anew.
    cursors.commit("billing", in_epoch(2, 7)).unwrap();
    cursors.commit("billing", in_epoch(3, 5)).unwrap();
    cursors
        .set("billing", Position::new(in_epoch(3, 1)))
        .unwrap();
    drop(cursors);
    assert_eq!(offset_of(&opened(dir.path()), "billing"), Some(1));
}

#[test]
fn a_commit_needs_a_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = opened(dir.path());
    let refused = cursors.commit("billing", at(1));
    assert!(matches!(refused, Err(CursorError::Unknown { name }) if name == "billing"));
    assert_eq!(cursors.list(), []);
}

#[test]
fn a_name_is_short_text_that_a_terminal_can_print() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = opened(dir.path());
    let longest = "ä".repeat(127) + "x";
    assert_eq!(longest.len(), Cursor::NAME_BYTES_MAX);
    for name in ["x", "room:1/ü ☃", &longest] {
        cursors.set(name, Position::new(at(1))).unwrap();
    }
    let too_long = longest.clone() + "x";
    for (name, problem) in [
        ("", CursorNameError::Empty),
        (&too_long, CursorNameError::TooLong { bytes: 256 }),
        (
            "ab\u{1b}[2J",
            CursorNameError::Control {
                name: "ab\u{1b}[2J".to_owned(),
                at: 2,
            },
        ),
        (
            "ü\u{85}",
            CursorNameError::Control {
                name: "ü\u{85}".to_owned(),
                at: 2,
            },
        ),
    ] {
        let refused = [
            cursors.set(name, Position::new(at(1))),
            cursors.commit(name, at(2)),
            cursors.delete(name).map(drop),
        ];
        for refused in refused {
            let Err(CursorError::Name(found)) = refused else {
                panic!("{name:?}: {refused:?}")
            };
            assert_eq!(found, problem);
            let said = found.to_string();
            assert!(!said.contains(char::is_control), "{said:?}");
        }
        assert_eq!(cursors.get(name), None);
    }
    drop(cursors);
    assert_eq!(opened(dir.path()).list().len(), 3);
}

#[test]
fn a_thousand_cursors_are_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = opened(dir.path());
    let name = |i: u64| format!("consumer {i:04}");
    for i in 0..1_000 {
        cursors.set(&name(i), Position::new(at(i))).unwrap();
    }
    for i in (0..1_000).step_by(3) {
        cursors.commit(&name(i), at(i + 10_000)).unwrap();
    }
    let left = as_if_killed(dir.path());
    drop(cursors);

    for dir in [dir.path(), left.path()] {
        let cursors = opened(dir);
        assert_eq!(cursors.notices(), []);
        let list = cursors.list();
        assert_eq!(list.len(), 1_000);
        for (i, cursor) in (0..).zip(&list) {
            assert_eq!(cursor.name, name(i));
            let moved = if i % 3 == 0 { 10_000 } else { 0 };
            assert_eq!(cursor.checkpoint, at(i + moved));
        }
        assert_eq!(Cursors::published(dir).unwrap().cursors, list);
    }
}

#[test]
fn a_deleted_cursor_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = opened(dir.path());
    cursors.set("gone", Position::new(at(50))).unwrap();
    cursors.set("stays", Position::new(at(60))).unwrap();
    drop(cursors);
    let before = as_if_killed(dir.path());
    let cursors = opened(dir.path());
    assert!(cursors.delete("gone").unwrap());
    assert!(!cursors.delete("gone").unwrap());
    let left = as_if_killed(dir.path());
    // Its place in the list is taken by another one.
    cursors.set("new", Position::new(at(7))).unwrap();
    drop(cursors);

    // Also with the store as it was before, which knows of it still.
    for (of, store_of_before, names) in [
        (left.path(), false, &["stays"][..]),
        (left.path(), true, &["stays"]),
        (dir.path(), false, &["new", "stays"]),
        (dir.path(), true, &["new", "stays"]),
    ] {
        let dir = as_if_killed(of);
        if store_of_before {
            put_back(&before.path().join("cursors"), &dir.path().join("cursors"));
        }
        assert_eq!(names_in(&opened(dir.path())), names, "{store_of_before}");
        // It has gone from the store as well.
        fs::remove_file(dir.path().join("cursors.list")).unwrap();
        assert_eq!(names_in(&opened(dir.path())), names, "{store_of_before}");
    }
    let cursors = opened(dir.path());
    cursors.set("gone", Position::new(at(1))).unwrap();
    let anew = cursors.get("gone").unwrap();
    let others = cursors.list().into_iter().filter(|c| c.name != "gone");
    assert!(others.map(|c| c.generation).max().unwrap() < anew.generation);
}

#[test]
fn a_list_that_a_power_cut_took_back_is_brought_forward_from_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = opened(dir.path());
    cursors.set("billing", Position::new(at(1))).unwrap();
    let list = dir.path().join("cursors.list");
    let before = fs::read(&list).unwrap();
    cursors.commit_durable("billing", at(2)).unwrap();
    cursors.commit_durable("billing", at(3)).unwrap();
    drop(cursors);
    fs::write(&list, before).unwrap();

    let cursors = opened(dir.path());

    assert_eq!(offset_of(&cursors, "billing"), Some(3));
    let published = Cursors::published(dir.path()).unwrap();
    assert_eq!(published.cursors, cursors.list());
    assert_eq!(published.log_id, Some(LOG_ID));
}

#[test]
fn a_store_that_went_back_is_filled_again_from_the_list_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = opened(dir.path());
    cursors.set("billing", Position::new(at(1))).unwrap();
    drop(cursors);
    let before = as_if_killed(dir.path());
    let cursors = opened(dir.path());
    cursors.commit_durable("billing", at(2)).unwrap();
    cursors.commit("billing", at(3)).unwrap();
    drop(cursors);
    put_back(&before.path().join("cursors"), &dir.path().join("cursors"));

    let cursors = opened(dir.path());

    assert_eq!(offset_of(&cursors, "billing"), Some(3));
    let notices = cursors.notices();
    assert!(
        matches!(notices, [StoreNotice::StoreOlder { cursors: 1, .. }]),
        "{notices:?}"
    );
    drop(cursors);
    // What it was filled with is there without the list.
    fs::remove_file(dir.path().join("cursors.list")).unwrap();
    let cursors = opened(dir.path());
    assert_eq!(offset_of(&cursors, "billing"), Some(3));
    let notices = cursors.notices();
    assert!(
        matches!(notices, [StoreNotice::ListGone { cursors: 1, .. }]),
        "{notices:?}"
    );
    drop(cursors);
    assert_eq!(opened(dir.path()).notices(), [], "it was mended");
}

/// Where the list's first cursor has its two slots.
const SLOTS: [usize; 2] = [2048, 2048 + 1024];

/// Opens the cursors with one bit of the list flipped, behind the beginning of a slot. Returns where
/// "billing" is then, which is what the one notice says too.
fn billing_with_a_bad_slot(dir: &Path, slot: usize) -> u64 {
    let left = as_if_killed(dir);
    let list = left.path().join("cursors.list");
    let mut bytes = fs::read(&list).unwrap();
    bytes[slot + 40] ^= 4;
    fs::write(&list, bytes).unwrap();
    let cursors = opened(left.path());
    let found = cursors.get("billing").unwrap().checkpoint;
    let notices = cursors.notices();
    let [
        StoreNotice::SlotDamaged {
            name,
            position,
            checkpoint,
            ..
        },
    ] = notices
    else {
        panic!("{notices:?}")
    };
    assert_eq!((name.as_str(), *position), ("billing", slot as u64));
    assert_eq!(*checkpoint, found);
    found.offset.get()
}

#[test]
fn a_torn_commit_leaves_the_one_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = opened(dir.path());
    cursors.set("billing", Position::new(at(1))).unwrap();
    let left = as_if_killed(dir.path());
    for offset in 2..=9 {
        cursors.commit("billing", at(offset)).unwrap();
        copy_list(dir.path(), left.path());
        let mut found = SLOTS.map(|slot| billing_with_a_bad_slot(left.path(), slot));
        found.sort();
        assert_eq!(
            found,
            [offset - 1, offset],
            "the newer one or the older one is torn"
        );
    }
}

#[test]
fn a_cursor_that_went_back_stays_back_though_damage_meets_it_before_the_store_has_it() {
    type GoesBack = fn(&Cursors) -> Result<(), CursorError>;
    let by_hand: GoesBack = |cursors| cursors.set("billing", Position::new(at(20)));
    let behind_a_crash: GoesBack = |cursors| cursors.commit("billing", in_epoch(2, 20));
    for go_back in [by_hand, behind_a_crash] {
        let dir = tempfile::tempdir().unwrap();
        let cursors = opened(dir.path());
        cursors.set("billing", Position::new(at(1))).unwrap();
        cursors.commit_durable("billing", at(900)).unwrap();
        // As a kill leaves it between the list and the store.
        let left = as_if_killed(dir.path());
        go_back(&cursors).unwrap();
        copy_list(dir.path(), left.path());

        for slot in SLOTS {
            assert_eq!(
                billing_with_a_bad_slot(left.path(), slot),
                20,
                "slot at {slot}"
            );
        }
    }
}

#[test]
fn cursors_of_another_log_are_refused_and_can_be_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = opened(dir.path());
    cursors.set("billing", Position::new(at(9))).unwrap();
    let while_open = Cursors::open(dir.path(), LOG_ID + 1).unwrap_err();
    assert!(matches!(while_open, CursorError::ForeignLog { .. }));
    drop(cursors);
    let list = dir.path().join("cursors.list");
    let other = as_if_killed(dir.path());
    // The list, the store, and both.
    fs::remove_file(other.path().join("cursors.list")).unwrap();
    for dir in [dir.path(), other.path()] {
        let error = Cursors::open(dir, LOG_ID + 1).unwrap_err();
        let CursorError::ForeignLog {
            expected, found, ..
        } = error
        else {
            panic!("{error:?}")
        };
        assert_eq!((expected, found), (LOG_ID + 1, LOG_ID));
        assert!(error.to_string().contains("Cursors::rebuild"), "{error}");
        assert_eq!(offset_of(&opened(dir), "billing"), Some(9), "as they were");

        let cursors = Cursors::rebuild(dir, LOG_ID + 1).unwrap();
        assert_eq!(cursors.list(), []);
        cursors.set("billing", Position::new(at(2))).unwrap();
        drop(cursors);
        let cursors = Cursors::open(dir, LOG_ID + 1).unwrap();
        assert_eq!(offset_of(&cursors, "billing"), Some(2));
        assert!(dir.join("cursors.damaged-1").is_dir());
    }
    assert!(list.with_file_name("cursors.list.damaged-1").is_file());
}

#[test]
fn a_rebuild_keeps_every_cursor_that_one_of_the_two_holds_and_all_that_was_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (store, list) = (dir.path().join("cursors"), dir.path().join("cursors.list"));
    let orders = Position::new(at(7))
        .topic(Topic::new("orders").unwrap())
        .holds(true);
    let cursors = opened(dir.path());
    cursors.set("gone", Position::new(at(3))).unwrap();
    cursors.set("billing", orders).unwrap();
    cursors.delete("gone").unwrap();
    cursors.commit("billing", at(8)).unwrap();
    let before = cursors.list();
    drop(cursors);

    for round in 1..=2 {
        fs::remove_dir_all(&store).unwrap();
        fs::write(&store, format!("damage {round}")).unwrap();
        let refused = Cursors::open(dir.path(), LOG_ID).unwrap_err();
        assert!(
            matches!(refused, CursorError::Damaged { .. }),
            "{refused:?}"
        );
        let cursors = Cursors::rebuild(dir.path(), LOG_ID).unwrap();
        assert_eq!(cursors.list(), before);
        let notices = cursors.notices();
        assert!(
            matches!(notices, [StoreNotice::StoreOlder { cursors: 1, .. }]),
            "{notices:?}"
        );
        drop(cursors);
        let aside = fs::read_to_string(dir.path().join(format!("cursors.damaged-{round}")));
        assert_eq!(aside.unwrap(), format!("damage {round}"));
    }
    fs::remove_file(&list).unwrap();
    fs::create_dir(&list).unwrap();
    let refused = Cursors::open(dir.path(), LOG_ID).unwrap_err();
    assert!(
        matches!(refused, CursorError::Damaged { .. }),
        "{refused:?}"
    );
    let cursors = Cursors::rebuild(dir.path(), LOG_ID).unwrap();
    assert_eq!(cursors.list(), before);
    let notices = cursors.notices();
    assert!(
        matches!(notices, [StoreNotice::ListGone { cursors: 1, .. }]),
        "{notices:?}"
    );
    assert!(dir.path().join("cursors.list.damaged-3").is_dir());
    drop(cursors);
    let cursors = opened(dir.path());
    assert_eq!((cursors.list(), cursors.notices()), (before, &[][..]));
}

#[test]
fn a_list_of_a_later_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = opened(dir.path());
    cursors.set("billing", Position::new(at(9))).unwrap();
    drop(cursors);
    let list = dir.path().join("cursors.list");
    let mut bytes = fs::read(&list).unwrap();
    bytes[12] = 2;
    let sum = crc32fast::hash(&bytes[12..32]);
    bytes[8..12].copy_from_slice(&sum.to_le_bytes());
    fs::write(&list, &bytes).unwrap();

    for refused in [
        Cursors::open(dir.path(), LOG_ID).map(drop),
        Cursors::rebuild(dir.path(), LOG_ID).map(drop),
        Cursors::published(dir.path()).map(drop),
    ] {
        let refused = refused.unwrap_err();
        assert!(
            matches!(refused, CursorError::Version { found: 2, .. }),
            "{refused:?}"
        );
    }
    assert_eq!(fs::read(&list).unwrap(), bytes);
}

#[test]
fn all_who_ask_in_one_process_share_one_store() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = opened(dir.path());
    cursors.set("billing", Position::new(at(0))).unwrap();
    let detour = dir.path().join("cursors").join("..");
    assert_eq!(offset_of(&opened(&detour), "billing"), Some(0));
    let refused = Cursors::rebuild(dir.path(), LOG_ID).unwrap_err();
    assert!(refused.to_string().contains("this process"), "{refused}");
    drop(cursors);
    // Opened and closed by all of them, over and over.
    thread::scope(|scope| {
        for worker in 0..4 {
            let dir = dir.path();
            scope.spawn(move || {
                for i in 0..25 {
                    let cursors = opened(dir);
                    let name = format!("worker {worker}");
                    if i == 0 {
                        cursors.set(&name, Position::new(at(0))).unwrap();
                    }
                    cursors.commit(&name, at(i)).unwrap();
                }
            });
        }
    });
    let cursors = opened(dir.path());
    for worker in 0..4 {
        assert_eq!(offset_of(&cursors, &format!("worker {worker}")), Some(24));
    }
}

#[test]
fn durable_commits_of_several_threads_all_reach_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = opened(dir.path());
    thread::scope(|scope| {
        for worker in 0..4 {
            let cursors = cursors.clone();
            scope.spawn(move || {
                let name = format!("worker {worker}");
                cursors.set(&name, Position::new(at(0))).unwrap();
                for offset in 1..=20 {
                    cursors.commit(&name, at(offset - 1)).unwrap();
                    cursors.commit_durable(&name, at(offset)).unwrap();
                }
            });
        }
    });
    // As a kill leaves it, and without the list: what is left is what the store was given.
    let left = as_if_killed(dir.path());
    fs::remove_file(left.path().join("cursors.list")).unwrap();
    let left = opened(left.path());
    for worker in 0..4 {
        assert_eq!(offset_of(&left, &format!("worker {worker}")), Some(20));
    }
}

#[test]
fn a_commit_that_nobody_waits_for_becomes_durable_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = opened(dir.path());
    cursors.set("billing", Position::new(at(0))).unwrap();
    cursors.commit("billing", at(1)).unwrap();
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < HANGS);
        // What the store was given, as a kill leaves it. Without the list, and it may be just being written.
        let left = as_if_killed(dir.path());
        fs::remove_file(left.path().join("cursors.list")).unwrap();
        let left = Cursors::open(left.path(), LOG_ID);
        if left.is_ok_and(|left| offset_of(&left, "billing") == Some(1)) {
            break;
        }
    }
}

#[test]
fn no_commit_is_lost_by_kills_at_random_moments() {
    let dir = tempfile::tempdir().unwrap();
    let cursors = opened(dir.path());
    cursors.set("billing", Position::new(at(0))).unwrap();
    drop(cursors);
    let mut random = Random(0xdaca);
    let mut committed = 0;
    for _ in 0..12 {
        let mut child = Child::start("child_that_commits_until_it_is_killed", dir.path());
        for _ in 0..random.below(300) {
            committed = child.line().unwrap().parse().unwrap();
        }
        if let Some(last) = child.kill().last() {
            committed = last.parse().unwrap();
        }
        let cursors = opened(dir.path());
        assert_eq!(cursors.notices(), []);
        let found = offset_of(&cursors, "billing").unwrap();
        // The next one may have been committed, and not been said.
        assert!(
            found == committed || found == committed + 1,
            "{found}, {committed}"
        );
    }
    assert!(committed > 0);
}

#[test]
fn child_that_commits_until_it_is_killed() {
    let Some(dir) = child_of() else { return };
    let cursors = opened(&dir);
    let begun = offset_of(&cursors, "billing").unwrap();
    for offset in begun + 1.. {
        match offset % 64 {
            0 => cursors.commit_durable("billing", at(offset)).unwrap(),
            _ => cursors.commit("billing", at(offset)).unwrap(),
        }
        say(offset);
    }
}

/// Each sync of the list and of the store fails once, and so does sled's own, which it panics over when
/// it is closed.
#[test]
fn no_sync_that_fails_is_followed_by_a_commit() {
    let strace = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output();
    if !strace.is_ok_and(|strace| strace.status.success()) {
        tell("SKIPPED: no_sync_that_fails_is_followed_by_a_commit needs strace");
        return;
    }
    for (file, call) in [
        ("cursors.list", "fdatasync"),
        ("cursors/db", "fdatasync"),
        ("cursors/db", "fsync"),
    ] {
        for when in 1..=4 {
            let dir = tempfile::tempdir().unwrap();
            let cursors = opened(dir.path());
            cursors.set("billing", Position::new(at(0))).unwrap();
            drop(cursors);
            let inject = format!("inject={call}:error=EIO:when={when}");
            let mut strace = Command::new("strace");
            strace
                .args(["-f", "-o", "/dev/null", "-e", &inject, "-P"])
                .arg(dir.path().canonicalize().unwrap().join(file))
                .arg(env::current_exe().unwrap());
            let child = "child_that_commits_until_a_sync_fails";
            let mut child = Child::start_as(strace, child, dir.path());
            let (mut committed, mut failed) = (0, false);
            loop {
                let said = child.line().expect("it says how it ended");
                match said.split_once(' ') {
                    Some(("committed", offset)) => committed = offset.parse().unwrap(),
                    Some(("failed", error)) => {
                        failed = true;
                        assert!(error.contains("Input/output error"), "{inject}: {error}");
                    }
                    _ => {
                        assert_eq!(said, "closed", "{inject}");
                        break;
                    }
                }
            }
            child.end();

            // Every durable commit syncs both. sled's own syncs come where they like.
            assert!(failed || call == "fsync", "{inject} of {file}");
            let found = offset_of(&opened(dir.path()), "billing").unwrap();
            // One that failed may be there.
            assert!(
                found == committed || found == committed + 1,
                "{inject}: {found}"
            );
        }
    }
}

#[test]
fn child_that_commits_until_a_sync_fails() {
    let Some(dir) = child_of() else { return };
    match Cursors::open(&dir, LOG_ID) {
        Ok(cursors) => {
            for offset in 1..=5 {
                match cursors.commit_durable("billing", at(offset)) {
                    Ok(()) => say(format!("committed {offset}")),
                    Err(failure) => {
                        say(format!("failed {failure}"));
                        let after = [
                            cursors.commit("billing", at(offset + 1)),
                            cursors.commit_durable("billing", at(offset + 1)),
                            cursors.set("billing", Position::new(at(offset + 1))),
                            cursors.delete("billing").map(drop),
                            cursors.flush(),
                        ];
                        for refused in after {
                            assert!(
                                matches!(refused, Err(CursorError::Poisoned { .. })),
                                "{refused:?}"
                            );
                        }
                        break;
                    }
                }
            }
            drop(cursors);
        }
        Err(failure) => say(format!("failed {failure}")),
    }
    say("closed");
}

#[test]
fn a_second_process_is_told_who_holds_them_and_can_read_them() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Cursors::published(dir.path()).unwrap().cursors, []);
    let mut child = Child::start("child_that_holds_them_until_it_is_killed", dir.path());
    assert_eq!(child.line().as_deref(), Some("held"));

    let refused = [
        Cursors::open(dir.path(), LOG_ID).unwrap_err(),
        Cursors::rebuild(dir.path(), LOG_ID).unwrap_err(),
    ];
    for refused in refused {
        let CursorError::Held { path, pid } = &refused else {
            panic!("{refused:?}")
        };
        assert_eq!(*path, dir.path().canonicalize().unwrap());
        assert_eq!(*pid, Some(child.process.id()));
        assert!(
            refused
                .to_string()
                .contains(&format!("process {}", child.process.id()))
        );
    }
    let mut last = 0;
    while last < 2_000 {
        let published = Cursors::published(dir.path()).unwrap();
        assert_eq!(published.damaged, 0);
        assert_eq!(published.log_id, Some(LOG_ID));
        let names = published.cursors.iter().map(|cursor| cursor.name.as_str());
        assert!(names.eq(["audit", "billing"]));
        let found = published.cursors[1].checkpoint.offset.get();
        assert!(found >= last, "{found} after {last}");
        last = found;
    }
    child.kill();
    // The lock died with the process.
    assert!(offset_of(&opened(dir.path()), "billing").unwrap() >= last);
}

#[test]
fn child_that_holds_them_until_it_is_killed() {
    let Some(dir) = child_of() else { return };
    let cursors = opened(&dir);
    cursors.set("billing", Position::new(at(0))).unwrap();
    cursors.set("audit", Position::new(at(0))).unwrap();
    say("held");
    for offset in 1.. {
        cursors.commit("billing", at(offset)).unwrap();
    }
}

/// What was committed last in [`history`], by name. No single damage may lead to anything ahead of it.
const COMMITTED: [(&str, u64); 4] = [("audit", 40), ("back", 25), ("billing", 300), ("mail", 9)];

/// A store with a past, as it is while it is open and as it was closed: commits of both strengths, a
/// cursor that was set back, one that was deleted, and one in its place.
fn history() -> [TempDir; 2] {
    let dir = tempfile::tempdir().unwrap();
    let cursors = opened(dir.path());
    for name in ["audit", "gone", "billing", "back"] {
        cursors
            .set(name, Position::new(at(1)).topic(Topic::new("t").unwrap()))
            .unwrap();
    }
    for offset in 2..=20 {
        cursors.commit_durable("gone", at(offset * 100)).unwrap();
        cursors.commit_durable("back", at(offset * 100)).unwrap();
        cursors.commit_durable("audit", at(offset * 2)).unwrap();
        cursors.commit("billing", at(offset * 10)).unwrap();
    }
    cursors.delete("gone").unwrap();
    cursors.set("mail", Position::new(at(9))).unwrap();
    cursors.set("back", Position::new(at(20))).unwrap();
    // The store as it is before it is given the rest.
    let open = as_if_killed(dir.path());
    cursors.commit("back", at(25)).unwrap();
    cursors.commit("billing", at(299)).unwrap();
    cursors.commit("billing", at(300)).unwrap();
    copy_list(dir.path(), open.path());
    drop(cursors);
    [open, dir]
}

#[derive(Debug, Default)]
struct Outcomes {
    as_committed: u32,
    behind: u32,
    refused: u32,
}

impl Outcomes {
    /// Opens what is damaged, as often as it takes to be well again.
    fn check(&mut self, dir: &Path, damage: &str) {
        let cursors = match open_in_time(dir, damage) {
            Ok(cursors) => cursors,
            Err(error) => {
                self.refused += 1;
                let CursorError::Damaged { path, .. } = &error else {
                    panic!("{damage}: {error:?}")
                };
                assert!(
                    path.starts_with(dir.canonicalize().unwrap()),
                    "{damage}: {error}"
                );
                assert!(
                    error.to_string().contains("Cursors::rebuild"),
                    "{damage}: {error}"
                );
                let again = open_in_time(dir, damage);
                assert!(
                    matches!(again, Err(CursorError::Damaged { .. })),
                    "{damage}: nothing changes until it is rebuilt: {again:?}"
                );
                Cursors::rebuild(dir, LOG_ID).unwrap()
            }
        };
        let mut behind = false;
        for (name, committed) in COMMITTED {
            let found = offset_of(&cursors, name);
            assert!(
                found.is_none_or(|found| found <= committed),
                "{damage}: {name} at {found:?}"
            );
            behind |= found != Some(committed);
        }
        if behind {
            self.behind += 1;
            assert_ne!(cursors.notices(), [], "{damage}: {:?}", cursors.list());
        } else {
            self.as_committed += 1;
        }
        assert_eq!(cursors.get("gone"), None, "{damage}");
        for cursor in cursors.list() {
            assert!(
                COMMITTED.iter().any(|(name, _)| *name == cursor.name),
                "{damage}"
            );
        }
        // It goes on, and is well.
        for (name, _) in COMMITTED {
            if cursors.get(name).is_none() {
                cursors.set(name, Position::new(at(0))).unwrap();
            }
            cursors.commit(name, at(500)).unwrap();
        }
        let list = cursors.list();
        drop(cursors);
        let cursors = open_in_time(dir, damage).unwrap();
        assert_eq!(cursors.notices(), [], "{damage}");
        assert_eq!(cursors.list(), list, "{damage}");
    }
}

fn open_in_time(dir: &Path, damage: &str) -> Result<Cursors, CursorError> {
    let (sender, result) = mpsc::channel();
    let dir = dir.to_owned();
    let opening = thread::spawn(move || {
        // Nobody listens where it was given up.
        let _ = sender.send(Cursors::open(dir, LOG_ID));
    });
    let opened = match result.recv_timeout(HANGS) {
        Ok(opened) => opened,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{damage}: opening hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("{damage}: opening panics"),
    };
    opening.join().unwrap();
    opened
}

#[test]
fn whatever_bit_flips_no_cursor_is_ahead_of_what_was_committed() {
    let flips = by_hand("DACAPO_CURSOR_FLIPS", 60);
    let mut random = Random(by_hand("DACAPO_CURSOR_SEED", 7));
    let mut outcomes = Outcomes::default();
    for base in history() {
        for file in files_in(base.path()) {
            let name = file.strip_prefix(base.path()).unwrap();
            let sound = fs::read(&file).unwrap();
            // Most of sled's file is zeros.
            let used: Vec<usize> = (0..sound.len()).filter(|&i| sound[i] != 0).collect();
            if used.is_empty() {
                continue;
            }
            for flip in 0..flips {
                let byte = match flip % 4 {
                    0 => random.index(sound.len()),
                    _ => used[random.index(used.len())],
                };
                let bit = random.below(8);
                let mut bytes = sound.clone();
                bytes[byte] ^= 1 << bit;
                let dir = as_if_killed(base.path());
                fs::write(dir.path().join(name), bytes).unwrap();
                let damage = format!("bit {bit} of byte {byte} of {}", name.display());
                outcomes.check(dir.path(), &damage);
            }
        }
    }
    tell(&format!("{outcomes:?}"));
    assert!(outcomes.as_committed > 0 && outcomes.behind > 0);
}

#[test]
fn whatever_is_cut_off_or_gone_no_cursor_is_ahead_of_what_was_committed() {
    let cuts = by_hand("DACAPO_CURSOR_FLIPS", 20);
    let mut random = Random(by_hand("DACAPO_CURSOR_SEED", 8));
    let mut outcomes = Outcomes::default();
    for base in history() {
        for file in files_in(base.path()) {
            let name = file.strip_prefix(base.path()).unwrap();
            let sound = fs::read(&file).unwrap();
            let used = sound
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(0, |last| last + 1);
            let mut ends = vec![0];
            ends.extend((0..cuts).map(|_| random.index(used.max(1))));
            for end in ends {
                let dir = as_if_killed(base.path());
                fs::write(dir.path().join(name), &sound[..end]).unwrap();
                outcomes.check(
                    dir.path(),
                    &format!("{} cut to {end} bytes", name.display()),
                );
            }
            let dir = as_if_killed(base.path());
            fs::remove_file(dir.path().join(name)).unwrap();
            outcomes.check(dir.path(), &format!("{} removed", name.display()));
        }
        let dir = as_if_killed(base.path());
        fs::remove_dir_all(dir.path().join("cursors")).unwrap();
        outcomes.check(dir.path(), "the store removed");
        let dir = as_if_killed(base.path());
        fs::remove_dir_all(dir.path().join("cursors")).unwrap();
        fs::write(dir.path().join("cursors"), b"a file").unwrap();
        outcomes.check(dir.path(), "a file in the place of the store");
        let dir = as_if_killed(base.path());
        fs::remove_file(dir.path().join("cursors.list")).unwrap();
        fs::create_dir(dir.path().join("cursors.list")).unwrap();
        outcomes.check(dir.path(), "a directory in the place of the list");
    }
    tell(&format!("{outcomes:?}"));
    assert!(outcomes.as_committed > 0 && outcomes.behind > 0 && outcomes.refused > 0);
}

/// Says what a test covered, past the test harness, which hides what a passing test prints.
fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A number that the environment may give, for the long form of a test.
fn by_hand(variable: &str, otherwise: u64) -> u64 {
    env::var(variable).map_or(otherwise, |value| value.parse().unwrap())
}

/// splitmix64: numbers that look random, and are the same in every run.
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
}

const CHILD: &str = "DACAPO_CURSORS_OF";
/// Sets what a child says apart from what its test harness says.
const SAYS: &str = "child> ";

/// The directory that this process works on, if it is a child.
fn child_of() -> Option<PathBuf> {
    env::var_os(CHILD).map(PathBuf::from)
}

fn say(text: impl std::fmt::Display) {
    let mut out = io::stdout().lock();
    writeln!(out, "{SAYS}{text}").unwrap();
    out.flush().unwrap();
}

/// This program again, as a process that runs one test.
struct Child {
    process: std::process::Child,
    said: mpsc::Receiver<String>,
}

impl Child {
    fn start(test: &str, dir: &Path) -> Self {
        Self::start_as(Command::new(env::current_exe().unwrap()), test, dir)
    }

    /// As `start`, where `command` runs this program.
    fn start_as(mut command: Command, test: &str, dir: &Path) -> Self {
        let mut process = command
            .args(["--exact", "--nocapture", test])
            .env(CHILD, dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, said) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some((_, line)) = line.split_once(SAYS) {
                    // Nobody listens to the rest where the test has failed.
                    let _ = sender.send(line.to_owned());
                }
            }
        });
        Self { process, said }
    }

    fn line(&mut self) -> Option<String> {
        match self.said.recv_timeout(HANGS) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let _ = self.process.kill();
                panic!("process {} hangs", self.process.id());
            }
        }
    }

    /// Waits for it to end well.
    fn end(mut self) {
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}");
    }

    /// Kills it, and returns what it had still said.
    fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.said.iter().collect()
    }
}
