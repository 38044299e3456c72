//! What costs no memory: sending, and receivers that are gone.

use allocation_counter::measure;
use dacapo::ReplayChannel;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Reading {
    sensor: u64,
    values: [f64; 10],
}

const MESSAGES: usize = 10_000;

#[test]
fn a_send_allocates_nothing_in_the_steady_state() {
    let channel = ReplayChannel::<Reading>::builder()
        .log_options(dacapo::Log::options().segment_bytes_min(4 << 20))
        .temporary()
        .unwrap();
    let sender = channel.sender();
    let reading = Reading {
        sensor: 7,
        values: [0.5; 10],
    };
    sender.send(&reading).unwrap();

    let sending = measure(|| {
        for _ in 1..MESSAGES {
            sender.send(&reading).unwrap();
        }
    });

    // The index of the segment grows by doubling.
    assert!(sending.count_total < 20, "{sending:?}");

    let receiver = channel.receiver();
    let receiving = measure(|| {
        for _ in 0..MESSAGES {
            assert_eq!(receiver.receive_blocking().unwrap().sensor, 7);
        }
    });
    assert_eq!(receiving.count_total, 0, "{receiving:?}");
}

#[test]
fn receivers_that_are_gone_leave_nothing_behind() {
    let channel = ReplayChannel::<u64>::temporary().unwrap();
    let sender = channel.sender();
    sender.send(&0).unwrap();
    let come_and_go = || {
        for _ in 0..1_000 {
            let receiver = channel.receiver();
            receiver.receive_blocking().unwrap();
            assert!(
                receiver
                    .receive_timeout(std::time::Duration::ZERO)
                    .unwrap()
                    .is_none()
            );
        }
    };
    come_and_go();

    let again = measure(come_and_go);

    assert_eq!(again.bytes_current, 0, "{again:?}");
}
