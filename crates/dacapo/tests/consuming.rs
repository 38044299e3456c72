//! Consumers: what they have committed does not come again, and everything else does.
#![cfg(feature = "cursors")]

#[path = "support/copying.rs"]
mod copying;

use std::fs;
use std::path::Path;
use std::time::Duration;

use copying::copy;
use dacapo::{
    Checkpoint, Commits, ConsumeError, Consumer, CursorError, Cursors, Epoch, Log, Offset,
    Position, ReceiveError, ReplayChannel, Retention, Start, Topic,
};
use dacapo_log::ReadError;
use futures_lite::StreamExt;
use futures_lite::future::{block_on, poll_once};

fn numbers(dir: &Path) -> ReplayChannel<u64> {
    ReplayChannel::open(dir).unwrap()
}

fn numbers_to(dir: &Path, end: u64) -> ReplayChannel<u64> {
    let channel = numbers(dir);
    channel
        .sender()
        .send_batch(&Vec::from_iter(0..end))
        .unwrap();
    channel
}

fn drain(consumer: &mut Consumer<u64>) -> Vec<u64> {
    std::iter::from_fn(|| consumer.try_receive().unwrap()).collect()
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

#[test]
fn what_is_committed_does_not_come_again_and_what_is_not_does() {
    let dir = tempfile::tempdir().unwrap();
    let channel = numbers_to(dir.path(), 5);
    let mut consumer = channel.consumer("billing").unwrap();
    assert_eq!(consumer.receive_blocking().unwrap(), 0);
    assert_eq!(consumer.receive_blocking().unwrap(), 1);
    consumer.commit().unwrap();
    assert_eq!(consumer.receive_blocking().unwrap(), 2);
    assert_eq!(consumer.lag().unwrap(), 3);
    drop((consumer, channel));

    let channel = numbers(dir.path());
    let mut consumer = channel.consumer("billing").unwrap();
    assert_eq!(consumer.name(), "billing");
    assert_eq!(consumer.committed().offset, Offset::new(2));
    assert_eq!(drain(&mut consumer), [2, 3, 4]);
    consumer.commit_to(Offset::new(3)).unwrap();
    drop(consumer);
    let mut consumer = channel.consumer("billing").unwrap();
    assert_eq!(drain(&mut consumer), [4]);
    consumer.commit_durable().unwrap();
    assert_eq!(consumer.lag().unwrap(), 0);
    assert_eq!(drain(&mut channel.consumer("shipping").unwrap()).len(), 5);
}

#[test]
fn a_commit_goes_neither_back_nor_beyond_what_was_received() {
    let dir = tempfile::tempdir().unwrap();
    let channel = numbers_to(dir.path(), 5);
    let mut consumer = channel.consumer("billing").unwrap();
    (0..3).for_each(|_| _ = consumer.receive_blocking().unwrap());
    let error = consumer.commit_to(Offset::new(3)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "consumer \"billing\" has not received message 3: the next one that it receives is 3 or later; commit what it has received"
    );
    consumer.commit().unwrap();
    let error = consumer.commit_to(Offset::new(0)).unwrap_err();
    assert!(
        matches!(error, ConsumeError::Cursor(CursorError::Backwards { .. })),
        "{error}"
    );
    assert_eq!(consumer.committed().offset, Offset::new(3));
}

#[test]
fn a_consumer_commits_by_itself_as_it_was_asked_to_and_never_what_it_last_gave_out() {
    let ways = [
        (Commits::ByHand, 0),
        (Commits::Each, 4),
        (Commits::EveryMessages(2), 4),
        (Commits::EveryMessages(3), 3),
        (Commits::EveryInterval(Duration::MAX), 0),
        (Commits::EveryInterval(Duration::ZERO), 4),
    ];
    for (commits, committed) in ways {
        let dir = tempfile::tempdir().unwrap();
        let channel = numbers_to(dir.path(), 5);
        let open = || {
            channel
                .consumer_builder("billing")
                .commits(commits)
                .open()
                .unwrap()
        };
        let mut consumer = open();
        for expected in 0..5 {
            assert_eq!(consumer.receive_blocking().unwrap(), expected);
        }
        let stored = |consumer: &Consumer<u64>| consumer.cursor().unwrap().checkpoint.offset.get();
        assert_eq!(stored(&consumer), committed, "{commits:?}");
        // It waits: whatever it gave out is handled, however long it waits for the next one.
        assert_eq!(consumer.receive_timeout(Duration::ZERO).unwrap(), None);
        let waited = if commits == Commits::ByHand { 0 } else { 5 };
        assert_eq!(stored(&consumer), waited, "{commits:?}");
    }
}

#[test]
fn a_consumer_follows_live_and_ends_with_the_channel() {
    let dir = tempfile::tempdir().unwrap();
    let channel = numbers_to(dir.path(), 1);
    let mut consumer = channel
        .consumer_builder("live")
        .commits(Commits::Each)
        .open()
        .unwrap();
    block_on(async {
        assert_eq!(consumer.receive().await.unwrap(), 0);
        assert!(poll_once(consumer.receive()).await.is_none());
        assert!(poll_once(consumer.next()).await.is_none());
        channel.sender().send(&1).unwrap();
        let message = consumer.message().await.unwrap();
        assert_eq!(
            (message.offset(), message.decode().unwrap()),
            (Offset::new(1), 1)
        );
        channel.sender().send(&2).unwrap();
        assert_eq!(consumer.next().await.unwrap().unwrap(), 2);
        drop(channel);
        assert!(consumer.next().await.is_none());
        let error = consumer.receive().await.unwrap_err();
        assert!(
            matches!(error, ConsumeError::Receive(ReceiveError::Closed)),
            "{error}"
        );
        assert_eq!(
            consumer.committed().offset,
            Offset::new(3),
            "it waited, and was told"
        );
    });
}

#[test]
fn the_first_start_of_a_consumer_can_be_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let channel = numbers_to(dir.path(), 5);
    let at = |name, start| channel.consumer_builder(name).start(start).open();
    assert_eq!(drain(&mut at("late", Start::Latest).unwrap()), [0; 0]);
    channel.sender().send(&5).unwrap();
    // Now it has a place, and the start is another one's.
    assert_eq!(drain(&mut at("late", Start::Oldest).unwrap()), [5]);
    let error = at("beyond", Start::At(Offset::new(9))).unwrap_err();
    assert!(
        matches!(
            error,
            ConsumeError::Receive(ReceiveError::Read(ReadError::BeyondEnd { .. }))
        ),
        "{error}"
    );
    let names: Vec<_> = channel.consumers().unwrap();
    assert_eq!(
        names.len(),
        1,
        "no cursor is made of a start that cannot be"
    );
    assert_eq!((&*names[0].cursor.name, names[0].lag), ("late", 1));
}

#[test]
fn there_is_one_consumer_of_a_name_and_it_keeps_to_its_topic() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let on = |name: &str| ReplayChannel::<u64>::on(&log, &topic(name)).unwrap();
    let (orders, refunds) = (on("orders"), on("refunds"));
    let consumer = orders.consumer("billing").unwrap();
    let error = orders.consumer("billing").unwrap_err();
    assert!(matches!(error, ConsumeError::InUse { .. }), "{error}");
    let error = orders.delete_consumer("billing").unwrap_err();
    assert!(matches!(error, ConsumeError::InUse { .. }), "{error}");
    drop(consumer);
    let error = refunds.consumer("billing").unwrap_err();
    assert_eq!(
        error.to_string(),
        "consumer \"billing\" reads topic `orders`, and is opened for topic `refunds`; use another name, or delete it first"
    );
    assert!(orders.delete_consumer("billing").unwrap());
    assert!(!orders.delete_consumer("billing").unwrap());
    drop(refunds.consumer("billing").unwrap());
    for name in ["", &"x".repeat(256), "new\nline"] {
        let error = orders.consumer(name).unwrap_err();
        assert!(
            matches!(error, ConsumeError::Cursor(CursorError::Name(_))),
            "{error}"
        );
    }
}

#[test]
fn the_lag_of_a_consumer_counts_its_own_messages_only() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let on = |name: &str| ReplayChannel::<u64>::on(&log, &topic(name)).unwrap();
    let (orders, refunds) = (on("orders"), on("refunds"));
    for i in 0..10 {
        orders.sender().send(&i).unwrap();
        refunds.sender().send_batch(&[i; 3]).unwrap();
    }
    let mut consumer = orders.consumer("billing").unwrap();
    assert_eq!(consumer.lag().unwrap(), 10);
    (0..4).for_each(|_| _ = consumer.receive_blocking().unwrap());
    assert_eq!(consumer.lag().unwrap(), 10, "nothing is committed");
    consumer.commit().unwrap();
    assert_eq!(consumer.lag().unwrap(), 6);
    let status = orders.consumers().unwrap();
    assert_eq!((&*status[0].cursor.name, status[0].lag), ("billing", 6));
    assert_eq!(refunds.consumers().unwrap().len(), 0);
    assert_eq!(refunds.receiver().remaining().unwrap(), 30);
}

/// A channel that drops all it may.
fn forgetful(dir: &Path) -> ReplayChannel<Vec<u8>> {
    ReplayChannel::builder()
        .segment_bytes_max(16 << 10)
        .open(dir)
        .unwrap()
}

fn drop_all_but_the_newest(channel: &ReplayChannel<Vec<u8>>) -> Offset {
    channel.log().sync().unwrap();
    let rule = Retention::default().records_max(1);
    channel.log().retain(&rule).unwrap().oldest
}

#[test]
fn messages_are_kept_for_a_consumer_that_holds_them_also_while_it_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let channel = forgetful(dir.path());
    for i in 0..100 {
        channel.sender().send(&vec![i; 1000]).unwrap();
    }
    let holding =
        |channel: &ReplayChannel<Vec<u8>>| channel.consumer_builder("audit").holds(true).open();
    drop(holding(&channel).unwrap());
    assert_eq!(drop_all_but_the_newest(&channel), Offset::ZERO);
    drop(channel);

    // Nobody has opened the consumer here.
    let channel = forgetful(dir.path());
    assert_eq!(drop_all_but_the_newest(&channel), Offset::ZERO);
    let mut audit = channel.consumer("audit").unwrap();
    (0..60).for_each(|_| _ = audit.receive_blocking().unwrap());
    assert_eq!(
        drop_all_but_the_newest(&channel),
        Offset::ZERO,
        "not committed"
    );
    audit.commit().unwrap();
    let kept = drop_all_but_the_newest(&channel);
    assert!(Offset::ZERO < kept && kept <= Offset::new(60), "{kept}");
    assert_eq!(audit.receive_blocking().unwrap()[0], 60);
    drop(audit);
    assert!(channel.delete_consumer("audit").unwrap());
    assert!(drop_all_but_the_newest(&channel) > Offset::new(60));
}

#[test]
fn a_consumer_that_does_not_hold_is_told_what_it_missed_once() {
    let dir = tempfile::tempdir().unwrap();
    let channel = forgetful(dir.path());
    drop(channel.consumer("audit").unwrap());
    for i in 0..100 {
        channel.sender().send(&vec![i; 1000]).unwrap();
    }
    let oldest = drop_all_but_the_newest(&channel);
    let mut audit = channel.consumer("audit").unwrap();
    let error = audit.receive_blocking().unwrap_err();
    assert!(
        matches!(
            error,
            ConsumeError::Receive(ReceiveError::Read(ReadError::Pruned { .. }))
        ),
        "{error}"
    );
    assert_eq!(
        u64::from(audit.receive_blocking().unwrap()[0]),
        oldest.get()
    );
    audit.commit().unwrap();
}

fn is_of_cursors(name: &str) -> bool {
    name.starts_with("cursors")
}

#[test]
fn a_cursor_that_a_power_cut_left_ahead_of_its_log_says_so_and_receives_what_took_the_place() {
    let (dir, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let channel = numbers_to(dir.path(), 5);
    // What the disk held: five messages, of a log that was not closed.
    copy(dir.path(), cut.path(), |name| {
        !is_of_cursors(name) && name != "LOCK"
    });
    channel.sender().send_batch(&[5, 6, 7, 8, 9]).unwrap();
    let mut consumer = channel.consumer("billing").unwrap();
    assert_eq!(drain(&mut consumer).len(), 10);
    consumer.commit_durable().unwrap();
    drop((consumer, channel));
    copy(dir.path(), cut.path(), is_of_cursors);

    let channel = numbers(cut.path());
    channel.sender().send_batch(&[50, 60]).unwrap();
    let mut consumer = channel.consumer("billing").unwrap();
    let error = consumer.receive_blocking().unwrap_err();
    let ConsumeError::Receive(ReceiveError::Read(ReadError::Rewound { resume_at, .. })) = error
    else {
        panic!("{error}");
    };
    assert_eq!(resume_at, Offset::new(5));
    assert_eq!(consumer.lag().unwrap(), 2);
    assert_eq!(drain(&mut consumer), [50, 60]);
    consumer.commit().unwrap();
    drop(consumer);
    let mut consumer = channel.consumer("billing").unwrap();
    assert_eq!(drain(&mut consumer), [0; 0], "it was said, and is over");
}

#[test]
fn a_damaged_store_of_cursors_costs_repetitions_and_never_a_message() {
    const MESSAGES: u64 = 20;
    const COMMITTED: u64 = 12;
    let made = tempfile::tempdir().unwrap();
    let channel = numbers_to(made.path(), MESSAGES);
    let mut consumer = channel.consumer("billing").unwrap();
    for _ in 0..COMMITTED {
        consumer.receive_blocking().unwrap();
        consumer.commit_durable().unwrap();
    }
    drop((consumer, channel));

    let files = ["cursors.list", "cursors/db", "cursors/conf"];
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("flipped", |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes.iter_mut().step_by(61).for_each(|byte| *byte ^= 0x10);
            fs::write(path, bytes).unwrap();
        }),
        ("truncated", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("emptied", |path| fs::write(path, b"").unwrap()),
        ("deleted", |path| fs::remove_file(path).unwrap()),
    ];
    let sets: Vec<Vec<&str>> = files
        .iter()
        .map(|&file| vec![file])
        .chain([files.into()])
        .collect();
    for damaged in &sets {
        for (how, damage) in &damages {
            let dir = tempfile::tempdir().unwrap();
            copy(made.path(), dir.path(), |_| true);
            damaged
                .iter()
                .for_each(|file| damage(&dir.path().join(file)));

            let channel = numbers(dir.path());
            let mut consumer = match channel.consumer("billing") {
                Ok(consumer) => consumer,
                Err(ConsumeError::Cursor(error @ CursorError::Damaged { .. })) => {
                    assert!(error.to_string().contains("no message is lost"), "{error}");
                    let log_id = channel.log().id();
                    drop(Cursors::rebuild(dir.path(), log_id).unwrap());
                    channel.consumer("billing").unwrap()
                }
                Err(error) => panic!("{how} {damaged:?}: {error}"),
            };
            let begins = consumer.offset().get();
            assert!(begins <= COMMITTED, "{how} {damaged:?}: {begins}");
            assert!(
                drain(&mut consumer).into_iter().eq(begins..MESSAGES),
                "{how} {damaged:?}"
            );
            consumer.commit_durable().unwrap();
        }
    }
}

#[test]
fn cursors_of_another_log_are_refused() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let channel = numbers_to(one.path(), 5);
    drop((channel.consumer("billing").unwrap(), channel));
    copy(one.path(), other.path(), is_of_cursors);
    // The log is made beside the stray files.
    let log_dir = other.path().join("log");
    let channel = numbers_to(&log_dir, 5);
    copy(other.path(), &log_dir, is_of_cursors);
    let error = channel.consumer("billing").unwrap_err();
    assert!(
        matches!(error, ConsumeError::Cursor(CursorError::ForeignLog { .. })),
        "{error}"
    );
}

#[test]
fn where_cursors_cannot_be_read_everything_is_kept_until_they_can() {
    let dir = tempfile::tempdir().unwrap();
    let channel = forgetful(dir.path());
    for i in 0..100 {
        channel.sender().send(&vec![i; 1000]).unwrap();
    }
    let mut audit = channel
        .consumer_builder("audit")
        .holds(true)
        .open()
        .unwrap();
    (0..60).for_each(|_| _ = audit.receive_blocking().unwrap());
    audit.commit_durable().unwrap();
    drop((audit, channel));
    fs::write(dir.path().join("cursors.list"), b"").unwrap();
    fs::remove_dir_all(dir.path().join("cursors")).unwrap();
    fs::write(dir.path().join("cursors"), b"no directory").unwrap();

    let channel = forgetful(dir.path());
    let error = channel.consumer("audit").unwrap_err();
    assert!(error.to_string().contains("no message is lost"), "{error}");
    assert_eq!(drop_all_but_the_newest(&channel), Offset::ZERO);
    let holds = channel.log().status().unwrap().holds;
    assert_eq!(holds[0].name, "consumers, whose cursors cannot be read");

    let log_id = channel.log().id();
    drop(Cursors::rebuild(dir.path(), log_id).unwrap());
    let audit = channel.consumer("audit").unwrap();
    assert_eq!(audit.offset(), Offset::ZERO, "it begins anew");
    assert!(drop_all_but_the_newest(&channel) > Offset::ZERO);
}

#[test]
fn a_backup_has_the_cursors_of_its_time_and_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let (source, copy) = (dir.path().join("source"), dir.path().join("copy"));
    let channel = numbers_to(&source, 5);
    let mut billing = channel.consumer("billing").unwrap();
    drop(channel.consumer("gone").unwrap());
    (0..3).for_each(|_| _ = billing.receive_blocking().unwrap());
    billing.commit().unwrap();
    dacapo::backup(channel.log(), &copy, |_| ()).unwrap();

    channel.sender().send(&5).unwrap();
    assert_eq!(drain(&mut billing), [3, 4, 5]);
    billing.commit().unwrap();
    assert!(channel.delete_consumer("gone").unwrap());
    // As another process does, that cannot make the last message durable.
    let reader = Log::options().open_read_only(&source).unwrap();
    let made = dacapo::backup(&reader, &copy, |_| ()).unwrap();
    assert_eq!((made.next, made.not_durable), (Offset::new(5), 1));

    let error = ReplayChannel::<String>::builder()
        .open_read_only(&copy)
        .unwrap_err();
    assert!(
        error.to_string().contains("holds `u64` in postcard"),
        "{error}"
    );
    let copy = numbers(&copy);
    let consumers = copy.consumers().unwrap();
    assert_eq!(consumers.len(), 1);
    assert_eq!(
        (&*consumers[0].cursor.name, consumers[0].lag),
        ("billing", 0)
    );
    copy.sender().send(&50).unwrap();
    assert_eq!(drain(&mut copy.consumer("billing").unwrap()), [50]);
}

#[test]
fn a_cursor_set_by_hand_is_where_its_consumer_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let channel = numbers_to(dir.path(), 5);
    let cursors = Cursors::of(channel.log()).unwrap();
    let checkpoint = Checkpoint {
        offset: Offset::new(3),
        epoch: Epoch::new(channel.log().epoch().get()),
    };
    cursors.set("billing", Position::new(checkpoint)).unwrap();
    assert_eq!(drain(&mut channel.consumer("billing").unwrap()), [3, 4]);
}
