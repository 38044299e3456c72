//! What a killed process, a power cut, and damage leave, and what opening makes of it.

mod support;

use std::fs;

use dacapo_log::{
    AppendError, Damage, Epoch, Log, Offset, OpenError, ReadError, Start, Topic, repair, verify,
};
use support::{
    as_if_killed, flip, payloads, position_of, quiet, readable, rewrite_meta, segments,
    small_segments, sum_block, zero,
};

fn log_holding<const N: usize>(records: [&str; N]) -> (tempfile::TempDir, Log) {
    let dir = tempfile::tempdir().unwrap();
    let log = quiet().open(dir.path()).unwrap();
    for record in records {
        log.append(record.as_bytes()).unwrap();
    }
    (dir, log)
}

#[test]
fn a_killed_process_loses_nothing_that_it_appended() {
    let (_dir, log) = log_holding(["a", "b", "c"]);
    let left = as_if_killed(&log);

    let log = quiet().open(left.path()).unwrap();

    assert_eq!(payloads(&log), ["a", "b", "c"]);
    assert_eq!(log.append(b"d").unwrap(), Offset::new(3));
    assert_eq!(log.epoch(), Epoch::new(2));
    assert_eq!(
        segments(left.path()).len(),
        2,
        "an unclean end is followed by a new segment"
    );
}

#[test]
fn a_closed_log_goes_on_in_the_same_segment_and_epoch() {
    let (dir, log) = log_holding(["a"]);
    log.close().unwrap();

    let log = quiet().open(dir.path()).unwrap();
    log.append(b"b").unwrap();

    assert_eq!(payloads(&log), ["a", "b"]);
    assert_eq!(log.epoch(), Epoch::new(1));
    assert_eq!(segments(dir.path()).len(), 1);
}

#[test]
fn a_log_survives_many_kills_without_a_hole() {
    let (mut dir, mut log) = log_holding([]);
    for round in 0..20_u32 {
        for i in 0..10 {
            log.append(format!("{round}/{i}").as_bytes()).unwrap();
        }
        if round % 3 == 0 {
            log.sync().unwrap();
        }
        let left = as_if_killed(&log);
        log = small_segments().open(left.path()).unwrap();
        dir = left;
    }
    let expected: Vec<String> = (0..20)
        .flat_map(|round| (0..10).map(move |i| format!("{round}/{i}")))
        .collect();
    assert_eq!(payloads(&log), expected);
    drop(log);
    assert!(dacapo_log::verify(dir.path(), |_| ()).unwrap().is_sound());
}

#[test]
fn a_torn_tail_is_dropped_and_the_log_stays_writable() {
    let (_dir, log) = log_holding(["aaa", "bbb", "ccc"]);
    let left = as_if_killed(&log);
    let segment = &segments(left.path())[0];
    zero(segment, position_of(segment, "ccc"), 3);

    let log = quiet().open(left.path()).unwrap();

    assert_eq!(payloads(&log), ["aaa", "bbb"]);
    assert_eq!(log.append(b"ddd").unwrap(), Offset::new(2));
    let status = log.status().unwrap();
    let cut_bytes = status.epochs.last().unwrap().cut_bytes;
    assert!(
        (1..=24).contains(&cut_bytes),
        "the header of the torn record, less trailing zeros"
    );
}

#[test]
fn a_torn_batch_is_dropped_as_a_whole() {
    for lost in ["two", "three"] {
        let (_dir, log) = log_holding(["zero"]);
        log.append_batch(["one", "two", "three"]).unwrap();
        let left = as_if_killed(&log);
        let segment = &segments(left.path())[0];
        flip(segment, position_of(segment, lost));

        let log = quiet().open(left.path()).unwrap();

        assert_eq!(payloads(&log), ["zero"], "{lost} was torn");
        assert_eq!(log.append(b"new").unwrap(), Offset::new(1));
    }
}

#[test]
fn a_batch_whose_end_never_reached_the_disk_is_dropped_as_a_whole() {
    let (_dir, log) = log_holding(["zero"]);
    log.append_batch(["one", "two", "three"]).unwrap();
    let left = as_if_killed(&log);
    let segment = &segments(left.path())[0];
    zero(segment, position_of(segment, "three") - 24, 24 + 5);

    let log = quiet().open(left.path()).unwrap();

    assert_eq!(payloads(&log), ["zero"]);
}

#[test]
fn stale_bytes_behind_a_tear_never_come_back() {
    // The record at the tear is lost, those behind it are whole on disk.
    let (_dir, log) = log_holding(["keep", "torn", "old1", "old2", "old3"]);
    let left = as_if_killed(&log);
    let segment = &segments(left.path())[0];
    zero(segment, position_of(segment, "torn") - 24, 28);

    // New records of the same sizes, so that they would join the old ones seamlessly.
    let log = quiet().open(left.path()).unwrap();
    assert_eq!(payloads(&log), ["keep"]);
    log.append(b"new1").unwrap();
    let mut left = as_if_killed(&log);
    for _ in 0..3 {
        let log = quiet().open(left.path()).unwrap();
        assert_eq!(payloads(&log), ["keep", "new1"]);
        left = as_if_killed(&log);
    }
}

#[test]
fn recovery_that_is_killed_and_run_again_comes_to_the_same_end() {
    let (_dir, log) = log_holding(["a", "b", "torn", "stale"]);
    let left = as_if_killed(&log);
    let segment = segments(left.path())[0].clone();
    zero(&segment, position_of(&segment, "torn") - 24, 28);
    let torn = fs::read(&segment).unwrap();
    drop(quiet().open(left.path()).unwrap());

    // The new epoch is on disk, the footer and the punched hole are not.
    fs::write(&segment, torn).unwrap();
    fs::write(
        left.path().join("meta"),
        unclean(&fs::read(left.path().join("meta")).unwrap()),
    )
    .unwrap();
    let log = quiet().open(left.path()).unwrap();

    assert_eq!(payloads(&log), ["a", "b"]);
    assert_eq!(log.append(b"c").unwrap(), Offset::new(2));
}

/// A recovery sealed the segment, and the power cut behind it brought an older `meta` back, of a
/// clean end: what is appended now must not go before the footer, where readers do not look.
#[test]
fn nothing_is_appended_to_a_segment_that_has_a_footer() {
    let (dir, log) = log_holding(["a"]);
    log.close().unwrap();
    let meta = dir.path().join("meta");
    let clean = fs::read(&meta).unwrap();
    fs::write(&meta, unclean(&clean)).unwrap();
    drop(quiet().open(dir.path()).unwrap());
    fs::write(&meta, clean).unwrap();

    let log = quiet().open(dir.path()).unwrap();
    log.append(b"b").unwrap();

    let reader = Log::options().open_read_only(dir.path()).unwrap();
    assert_eq!(payloads(&reader), ["a", "b"]);
}

/// `meta` with one slot damaged: a clean end is then not believed.
fn unclean(meta: &[u8]) -> Vec<u8> {
    let mut meta = meta.to_vec();
    meta[4096 + 200] ^= 1;
    meta
}

#[test]
fn damage_below_the_durable_watermark_is_an_error_and_not_a_tear() {
    let (_dir, log) = log_holding(["aaa", "bbb"]);
    log.sync().unwrap();
    log.append(b"ccc").unwrap();
    let left = as_if_killed(&log);
    let segment = segments(left.path())[0].clone();
    let position = position_of(&segment, "bbb");
    flip(&segment, position);

    let Err(OpenError::Corrupt(damage)) = quiet().open(left.path()) else {
        panic!("opened a damaged log")
    };

    assert_eq!(damage.path, segment);
    assert_eq!(damage.offset, Some(Offset::new(1)));
    assert_eq!(damage.position, position as u64 - 24);
    assert!(matches!(damage.damage, Damage::Checksum { .. }));
    // The same log, read-only: everything sound is readable, the damage is reported in its place.
    let log = Log::options().open_read_only(left.path()).unwrap();
    let (sound, errors) = readable(&log);
    assert_eq!(sound, ["aaa", "ccc"]);
    assert!(matches!(&errors[..], [ReadError::Corrupt(c)] if c.offset == Some(Offset::new(1))));
}

#[test]
fn a_durable_record_that_became_zeros_is_damage() {
    let (_dir, log) = log_holding(["aaa", "bbb"]);
    log.sync().unwrap();
    let left = as_if_killed(&log);
    let segment = &segments(left.path())[0];
    zero(segment, position_of(segment, "bbb") - 24, 27);

    let opened = quiet().open(left.path());

    assert!(matches!(
        opened,
        Err(OpenError::Corrupt(damage)) if damage.damage == Damage::Missing && damage.offset == Some(Offset::new(1))
    ));
}

#[test]
fn damage_in_a_closed_log_is_an_error() {
    let (dir, log) = log_holding(["aaa", "bbb", "ccc"]);
    log.close().unwrap();
    let segment = &segments(dir.path())[0];
    flip(segment, position_of(segment, "ccc"));

    assert!(
        matches!(quiet().open(dir.path()), Err(OpenError::Corrupt(d)) if d.offset == Some(Offset::new(2)))
    );
}

#[test]
fn a_checkpoint_that_a_power_cut_went_behind_is_rewound() {
    let (_dir, log) = log_holding(["a", "b", "lost1", "lost2"]);
    let mut tailer = log.tail(Start::Oldest);
    for _ in 0..4 {
        tailer.next_blocking().unwrap();
    }
    let ahead = tailer.checkpoint();
    let left = as_if_killed(&log);
    let segment = &segments(left.path())[0];
    zero(segment, position_of(segment, "lost1") - 24, 24);

    let log = quiet().open(left.path()).unwrap();
    for record in ["c", "d", "e"] {
        log.append(record.as_bytes()).unwrap();
    }

    let mut tailer = log.tail(Start::Resume(ahead));
    // Whoever keeps its position before it is told skips nothing.
    assert_eq!(tailer.checkpoint().offset, Offset::new(2));
    assert_eq!(tailer.remaining().unwrap(), 3);
    let rewound = tailer.try_next().unwrap_err();
    let ReadError::Rewound {
        requested,
        resume_at,
        ..
    } = rewound
    else {
        panic!("{rewound}")
    };
    assert_eq!((requested, resume_at), (Offset::new(4), Offset::new(2)));
    let resumed = log
        .replay(Start::At(resume_at))
        .map(|record| record.unwrap().offset());
    assert_eq!(resumed.count(), 3);
}

#[test]
fn a_checkpoint_that_a_kill_left_valid_resumes() {
    let (_dir, log) = log_holding(["a", "b", "c"]);
    let mut replay = log.replay(Start::Oldest);
    replay.next();
    replay.next();
    let checkpoint = replay.checkpoint();
    let left = as_if_killed(&log);

    let log = quiet().open(left.path()).unwrap();

    let rest: Vec<_> = log
        .replay(Start::Resume(checkpoint))
        .map(|r| r.unwrap().offset())
        .collect();
    assert_eq!(rest, [Offset::new(2)]);
}

/// A closed log of several segments, and their number.
fn log_of_segments() -> (tempfile::TempDir, usize) {
    let dir = tempfile::tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    for i in 0..200_u32 {
        log.append(format!("{i:0200}").as_bytes()).unwrap();
    }
    log.close().unwrap();
    let count = segments(dir.path()).len();
    assert!(count > 5);
    (dir, count)
}

#[test]
fn a_segment_deleted_by_hand_is_named_and_the_others_stay_readable() {
    for from_the_end in 0..5 {
        let (dir, count) = log_of_segments();
        let gone = count - 1 - from_the_end;
        fs::remove_file(&segments(dir.path())[gone]).unwrap();

        let opened = small_segments().open(dir.path());

        let Err(OpenError::SegmentMissing { from, to, .. }) = opened else {
            panic!("segment {gone} of {count}: {opened:?}")
        };
        assert!(from < to);
        let log = Log::options().open_read_only(dir.path()).unwrap();
        let (sound, errors) = readable(&log);
        assert_eq!(
            sound.len() as u64,
            200 - to.since(from),
            "segment {gone} of {count}"
        );
        assert!(
            matches!(errors[..], [ReadError::SegmentMissing { offset, .. }] if offset == from),
            "segment {gone} of {count}: {errors:?}"
        );
        assert!(!dacapo_log::verify(dir.path(), |_| ()).unwrap().is_sound());
    }
}

#[test]
fn an_index_that_lies_or_is_garbage_or_gone_changes_nothing() {
    let (dir, _) = log_of_segments();
    let index = segments(dir.path())[0].with_extension("idx");
    let other = segments(dir.path())[1].with_extension("idx");
    let sound = fs::read(&index).unwrap();
    let mut lying = sound.clone();
    // Points to other records, under a checksum that fits.
    for point in lying[32..].chunks_exact_mut(8) {
        point[..4].copy_from_slice(&7_u32.to_le_bytes());
    }
    let sum = {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&lying[..12]);
        hasher.update(&lying[16..]);
        hasher.finalize()
    };
    lying[12..16].copy_from_slice(&sum.to_le_bytes());
    let versions = [
        Some(lying),
        Some(vec![0xFF; 77]),
        Some(Vec::new()),
        Some(fs::read(other).unwrap()),
        None,
    ];
    for bytes in versions {
        match bytes {
            Some(bytes) => fs::write(&index, bytes).unwrap(),
            None => fs::remove_file(&index).unwrap(),
        }
        let log = small_segments().open(dir.path()).unwrap();
        for offset in [1, 7, 20, 33] {
            let record = log.get(Offset::new(offset)).unwrap();
            assert_eq!(record.payload(), format!("{offset:0200}").as_bytes());
        }
    }
}

#[test]
fn garbage_in_meta_is_an_error_and_the_records_stay_readable() {
    let (dir, _) = log_of_segments();
    fs::write(dir.path().join("meta"), [0xA5; 8192]).unwrap();

    let opened = small_segments().open(dir.path());

    assert!(matches!(opened, Err(OpenError::Corrupt(d)) if d.damage == Damage::Meta));
    let log = Log::options().open_read_only(dir.path()).unwrap();
    assert_eq!(payloads(&log).len(), 200);
}

#[test]
fn a_log_without_its_meta_is_not_taken_for_a_new_one() {
    let (dir, _) = log_of_segments();
    fs::remove_file(dir.path().join("meta")).unwrap();

    assert!(matches!(
        small_segments().open(dir.path()),
        Err(OpenError::Corrupt(_))
    ));
    let log = Log::options().open_read_only(dir.path()).unwrap();
    assert_eq!(payloads(&log).len(), 200);
}

#[test]
fn one_damaged_slot_of_meta_is_healed_from_the_other() {
    for slot in [0, 4096] {
        let (dir, _) = log_of_segments();
        let meta = dir.path().join("meta");
        flip(&meta, slot + 130);
        assert!(!dacapo_log::verify(dir.path(), |_| ()).unwrap().is_sound());

        let log = small_segments().open(dir.path()).unwrap();
        assert_eq!(payloads(&log).len(), 200);
        drop(log);

        assert!(dacapo_log::verify(dir.path(), |_| ()).unwrap().is_sound());
    }
}

#[test]
fn another_version_says_so_and_changes_nothing() {
    let (dir, _) = log_of_segments();
    for file in [
        "meta",
        segments(dir.path())[0]
            .file_name()
            .unwrap()
            .to_str()
            .unwrap(),
    ] {
        let path = dir.path().join(file);
        let sound = fs::read(&path).unwrap();
        let mut newer = sound.clone();
        newer[8] = 9;
        if file == "meta" {
            newer[4096 + 8] = 9;
        } else {
            // With a checksum that fits: otherwise it would be a flipped bit.
            let sum = crc32fast::hash(&newer[..60]);
            newer[60..64].copy_from_slice(&sum.to_le_bytes());
        }
        fs::write(&path, newer).unwrap();

        let opened = small_segments().open(dir.path());

        assert!(
            matches!(&opened, Err(OpenError::Version { found: 9, supported: 1, path: p }) if *p == path),
            "{opened:?}"
        );
        fs::write(&path, sound).unwrap();
    }
    assert_eq!(
        payloads(&small_segments().open(dir.path()).unwrap()).len(),
        200
    );
}

#[test]
fn a_segment_of_another_log_is_refused() {
    let (dir, _) = log_of_segments();
    let (other, _) = log_of_segments();
    fs::copy(&segments(other.path())[1], &segments(dir.path())[1]).unwrap();

    let opened = small_segments().open(dir.path());

    assert!(
        matches!(opened, Err(OpenError::Corrupt(d)) if matches!(d.damage, Damage::ForeignLog { .. }))
    );
}

/// Found by fuzzing: only a scan looked at the base in the first frame, and a reader gave the
/// records of a growing segment the offsets of its file's name.
#[test]
fn the_records_of_a_misnamed_segment_are_not_taken_for_others() {
    for (from_the_end, name) in (0..5).flat_map(|segment| [(segment, 1), (segment, 221)]) {
        let (dir, count) = log_of_segments();
        let segment = count - 1 - from_the_end;
        let misnamed = dir.path().join(format!("{name:020}.seg"));
        fs::rename(&segments(dir.path())[segment], misnamed).unwrap();

        let log = Log::options().open_read_only(dir.path()).unwrap();

        let offsets = 0..log.next_offset().get();
        let found = offsets.filter_map(|offset| log.get(Offset::new(offset)).ok());
        let found: Vec<_> = found.collect();
        assert!(found.len() > 100);
        for record in found {
            let appended = format!("{:0200}", record.offset().get());
            assert_eq!(record.payload(), appended.as_bytes());
        }
    }
}

/// Without its first frame, a segment passed for the one whose name it had, though its footer knew
/// better: reading, and a repair, gave its records other offsets.
#[test]
fn a_misnamed_segment_is_known_by_its_footer_too() {
    let (dir, count) = log_of_segments();
    assert!(count > 2);
    let files = segments(dir.path());
    let (first, second) = (fs::read(&files[0]).unwrap(), fs::read(&files[1]).unwrap());
    fs::write(&files[0], second).unwrap();
    fs::write(&files[1], first).unwrap();
    flip(&files[0], 4096 + 24);

    let above = tempfile::tempdir().unwrap();
    let repaired = above.path().join("repaired");
    let found = repair(dir.path(), &repaired, |_| ()).unwrap();

    let is_misnamed = |damage: &Damage| matches!(damage, Damage::OutOfPlace { .. });
    let misnamed = found.damages.iter().filter(|d| is_misnamed(&d.damage));
    assert_eq!(misnamed.count(), 2, "{:?}", found.damages);
    for dir in [dir.path(), &repaired] {
        let log = Log::options().open_read_only(dir).unwrap();
        let offsets = 0..log.next_offset().get();
        let sound: Vec<_> = offsets
            .filter_map(|offset| log.get(Offset::new(offset)).ok())
            .collect();
        assert!(sound.len() > 50);
        for record in sound {
            let appended = format!("{:0200}", record.offset().get());
            assert_eq!(record.payload(), appended.as_bytes());
        }
    }
}

/// A file without a footer, with the last name of all, passed for the segment that the log grows in: a
/// read-only log gave its records the offsets of others, and offsets that no record had.
#[test]
fn a_misnamed_segment_that_seems_to_grow_is_known_by_its_first_frame() {
    let (_, count) = log_of_segments();
    for (segment, name) in (1..count - 1).flat_map(|segment| [(segment, 198), (segment, 199)]) {
        let (dir, _) = log_of_segments();
        let file = segments(dir.path())[segment].clone();
        let misnamed = dir.path().join(format!("{name:020}.seg"));
        let mut bytes = fs::read(&file).unwrap();
        let footer = bytes.len() - 4096;
        bytes[footer..].fill(0);
        fs::remove_file(&file).unwrap();
        fs::write(&misnamed, bytes).unwrap();

        let log = Log::options().open_read_only(dir.path()).unwrap();

        assert_eq!(log.next_offset(), Offset::new(200), "as the log was");
        let (read, errors) = readable(&log);
        assert!(!errors.is_empty(), "a segment is gone");
        let got = (0..200).filter_map(|offset| log.get(Offset::new(offset)).ok());
        for record in got {
            let appended = format!("{:0200}", record.offset().get());
            assert_eq!(record.payload(), appended.as_bytes());
        }
        assert!(read.len() > 100 && read.is_sorted(), "{read:?}");
        let refused = log.get(Offset::new(name)).unwrap_err();
        assert!(
            matches!(&refused, ReadError::Corrupt(at)
                if at.path == misnamed && at.position == 4096
                    && matches!(at.damage, Damage::OutOfPlace { .. })),
            "{refused}"
        );
        assert!(!verify(dir.path(), |_| ()).unwrap().is_sound());
        assert!(small_segments().open(dir.path()).is_err());
    }
}

/// Reading went on behind the segment in the very same one, for ever.
#[test]
fn a_footer_that_ends_where_its_segment_begins_is_none() {
    let (dir, _) = log_of_segments();
    for empty in [false, true] {
        let file = segments(dir.path())[1].clone();
        let mut bytes = fs::read(&file).unwrap();
        let footer = bytes.len() - 4096;
        bytes.copy_within(footer + 8..footer + 16, footer + 16);
        sum_block(&mut bytes[footer..footer + 64]);
        if empty {
            bytes[4096 + 48..footer].fill(0);
        }
        fs::write(&file, bytes).unwrap();

        let found = verify(dir.path(), |_| ()).unwrap();

        let footers = found.damages.iter().filter(|d| d.damage == Damage::Footer);
        assert_eq!(footers.count(), 1, "{found:?}");
        let opened = small_segments().open(dir.path());
        assert!(matches!(opened, Err(OpenError::Corrupt(d)) if d.damage == Damage::Footer));
    }
}

/// A reader went forward to the watermark by 2³² records at most, and began again where it stood.
#[test]
fn a_watermark_far_behind_the_log_is_an_error_and_ends() {
    for durable in [1 << 32, 1 << 40, 1 << 62] {
        let (_dir, log) = log_holding(["a"]);
        let left = as_if_killed(&log);
        rewrite_meta(left.path(), |slot| {
            slot[80..88].copy_from_slice(&u64::to_le_bytes(durable));
        });

        let found = verify(left.path(), |_| ()).unwrap();

        assert_eq!(found.records, 1);
        assert_eq!(found.lost, [Offset::new(1)..Offset::new(durable)]);
        let opened = quiet().open(left.path());
        assert!(
            matches!(opened, Err(OpenError::Corrupt(_))),
            "{durable}: {opened:?}"
        );
    }
}

/// A mapping is read in words, and the last one was not whole: that was a panic.
#[test]
fn a_segment_of_no_whole_number_of_pages_is_damage() {
    for more in [1, 4, 8, 100, 512, 4095] {
        let (_dir, log) = log_holding(["a"]);
        let left = as_if_killed(&log);
        let file = segments(left.path())[0].clone();
        let mut bytes = fs::read(&file).unwrap();
        bytes.resize(bytes.len() + more, 0);
        let len = bytes.len() as u64;
        bytes[40..48].copy_from_slice(&len.to_le_bytes());
        sum_block(&mut bytes[..64]);
        fs::write(&file, bytes).unwrap();

        let found = verify(left.path(), |_| ()).unwrap();

        let expected = Damage::Pages { bytes: len };
        assert_eq!(found.damages[0].damage, expected, "{found:?}");
        let opened = quiet().open(left.path());
        assert!(matches!(opened, Err(OpenError::Corrupt(d)) if d.damage == expected));
        let above = tempfile::tempdir().unwrap();
        let repaired = repair(left.path(), above.path().join("repaired"), |_| ()).unwrap();
        assert_eq!(repaired.records, 1);
    }
}

/// The end of all offsets on disk.
const OFFSETS_END: u64 = u64::MAX / 2;

/// An empty log that was closed, and begins with record `first`.
fn log_beginning_with(first: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    quiet().open(dir.path()).unwrap().close().unwrap();
    rewrite_meta(dir.path(), |slot| {
        for at in [40, 56, 64, 80] {
            slot[at..at + 8].copy_from_slice(&first.to_le_bytes());
        }
    });
    dir
}

/// They were believed, and an append panicked.
#[test]
fn offsets_in_meta_that_no_record_has_are_damage() {
    for first in [u64::MAX, u64::MAX - 1, OFFSETS_END] {
        let dir = log_beginning_with(first);
        let opened = quiet().open(dir.path());
        assert!(
            matches!(&opened, Err(OpenError::Corrupt(d)) if d.damage == Damage::Meta),
            "{opened:?}"
        );
        assert!(!verify(dir.path(), |_| ()).unwrap().is_sound());
    }
}

#[test]
fn a_log_that_has_used_up_its_offsets_says_so() {
    let last = OFFSETS_END - 2;
    let dir = log_beginning_with(last);
    for _ in 0..2 {
        let log = quiet().open(dir.path()).unwrap();
        let refused = log.append_batch(["one", "too many"]);
        assert!(
            matches!(refused, Err(AppendError::NoOffsetsLeft { .. })),
            "{refused:?}"
        );
        if log.next_offset() == Offset::new(last) {
            assert_eq!(log.append(b"the last").unwrap(), Offset::new(last));
        }
        let refused = log.append(b"one too many");
        assert!(
            matches!(refused, Err(AppendError::NoOffsetsLeft { next }) if next.get() == last + 1),
            "{refused:?}"
        );
        assert_eq!(payloads(&log), ["the last"]);
        log.close().unwrap();
    }
}

/// A gap in the segment that a closed log goes on in, nearly 2³² records long. Records behind it were
/// stored under relative offsets that do not fit 32 bits: as others, or with a panic.
#[test]
fn a_record_whose_relative_offset_would_not_fit_goes_into_the_next_segment() {
    for next in [
        u64::from(u32::MAX) - 1,
        u64::from(u32::MAX),
        1 << 32,
        1 << 40,
    ] {
        let (dir, log) = log_holding(["gap-gap!"]);
        log.close().unwrap();
        drop(log);
        let file = segments(dir.path())[0].clone();
        let mut bytes = fs::read(&file).unwrap();
        turn_into_a_gap(&mut bytes, 4096 + 48, next);
        fs::write(&file, bytes).unwrap();
        rewrite_meta(dir.path(), |slot| {
            slot[64..72].copy_from_slice(&next.to_le_bytes());
            slot[80..88].copy_from_slice(&next.to_le_bytes());
        });

        let log = quiet().open(dir.path()).unwrap();
        let offsets = log.append_batch(["a", "b", "c"]).unwrap();
        log.sync().unwrap();

        assert_eq!(offsets, Offset::new(next)..Offset::new(next + 3));
        for (offset, payload) in (next..).zip(["a", "b", "c"]) {
            let record = log.get(Offset::new(offset)).unwrap();
            assert_eq!(record.payload(), payload.as_bytes());
        }
        log.close().unwrap();
        drop(log);
        let log = quiet().open(dir.path()).unwrap();
        assert_eq!(log.next_offset(), Offset::new(next + 3));
    }
}

/// Makes of a frame with 8 bytes of payload a gap up to the record `next`.
fn turn_into_a_gap(segment: &mut [u8], frame: usize, next: u64) {
    const GAP: u8 = 5;
    segment[frame + 5] = GAP;
    segment[frame + 24..frame + 32].copy_from_slice(&next.to_le_bytes());
    let word_at =
        |at: usize| u32::from_le_bytes(segment[at..at + 4].try_into().expect("four bytes"));
    let salt = word_at(12) ^ word_at(frame) ^ word_at(frame + 4);
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(&segment[frame + 12..frame + 32]);
    let sum = hasher.finalize();
    segment[frame + 8..frame + 12].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn a_truncated_segment_is_reported() {
    let (dir, _) = log_of_segments();
    let segment = segments(dir.path())[1].clone();
    let bytes = fs::read(&segment).unwrap();
    for keep in [0, 10, 4096, 12_000] {
        fs::write(&segment, &bytes[..keep]).unwrap();
        let opened = small_segments().open(dir.path());
        assert!(
            matches!(opened, Err(OpenError::Corrupt(d)) if matches!(d.damage, Damage::Length { .. }))
        );
        let (sound, errors) = readable(&Log::options().open_read_only(dir.path()).unwrap());
        assert!(sound.len() > 100 && !errors.is_empty());
    }
}

#[test]
fn what_a_clean_log_holds_can_be_copied_with_holes_and_goes_on() {
    let (dir, log) = log_holding(["a"]);
    log.close().unwrap();
    let segment = &segments(dir.path())[0];
    // As `cp --sparse=always` would leave it.
    let bytes = fs::read(segment).unwrap();
    fs::remove_file(segment).unwrap();
    let file = fs::File::create(segment).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes[..8192], 0).unwrap();

    let log = quiet().open(dir.path()).unwrap();
    for _ in 0..1000 {
        log.append(&[b'x'; 100]).unwrap();
    }

    assert_eq!(payloads(&log).len(), 1001);
}

/// It wrote a footer with the times of the records that are left into the file, which the backup shares.
#[test]
fn a_recovery_leaves_a_compacted_segment_that_a_backup_shares_as_it_is() {
    let (dir, log) = log_holding(["kept"]);
    let gone = Topic::new("gone").unwrap();
    let time = |offset| log.get(offset).unwrap().timestamp_micros();
    let first = time(Offset::ZERO);
    // The last one is later than what is left.
    while time(log.append_to(&gone, b"gone").unwrap()) == first {}
    log.delete_topic(&gone).unwrap();
    log.compact(|_| ()).unwrap();
    log.append(b"behind").unwrap();
    log.sync().unwrap();
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("copy");
    assert_eq!(log.backup(&copy, |_| ()).unwrap().linked, 1);
    let shared = segments(&copy)[0].clone();
    let before = fs::read(&shared).unwrap();

    // The power is cut, and takes the mark of the last flush.
    let crashed = copies.path().join("crashed");
    fs::create_dir(&crashed).unwrap();
    let files = segments(dir.path());
    let to = |file: &std::path::Path| crashed.join(file.file_name().unwrap());
    fs::hard_link(&files[0], to(&files[0])).unwrap();
    fs::copy(&files[1], to(&files[1])).unwrap();
    fs::copy(dir.path().join("meta"), crashed.join("meta")).unwrap();
    let end = position_of(&files[1], "behind") + "behind".len();
    zero(&to(&files[1]), end.next_multiple_of(512), 64);
    let log = quiet().open(&crashed).unwrap();

    assert_eq!(payloads(&log), ["kept", "behind"]);
    assert!(
        fs::read(&shared).unwrap() == before,
        "the backup's file was written to"
    );
}
