//! How much of anything a client may have, and how long everything may take.

use std::time::Duration;

use serde::Deserialize;

/// How much of anything a client may have, and how long everything may take.
///
/// ```
/// use std::time::Duration;
/// use dacapo_server::phoenix::Limits;
///
/// let mut limits = Limits::default();
/// limits.idle = Duration::from_secs(90);
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// Channels that one socket may have joined; 100.
    pub channels: usize,
    /// After how long a WebSocket of which nothing is heard is closed, or one that takes nothing of what
    /// it is sent; 60 s. Clients send a heartbeat every 30 s.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub idle: Duration,
    /// The largest message of a client, in bytes; 1 MiB. A larger one closes the socket, with 1009.
    pub message_bytes: usize,
    /// Frames that may wait to be sent to a client; 256. Channels stop reading their topics then: what is
    /// durable waits in the log.
    pub frames: usize,
    /// Messages of a client that may wait for the handler of one channel; 64. Then the socket is no
    /// longer read.
    pub pushes: usize,
    /// Broadcasts that are not in a log and may wait for a channel; 256. A channel that is further
    /// behind fails with `phx_error`, so that its client joins again.
    pub broadcasts: usize,
    /// How long a long poll waits for something to send; 10 s.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub poll: Duration,
    /// How long after its last request a long-polling client is given up; 20 s.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub poll_session: Duration,
    /// The number of lines that one request of a long-polling client may have; 100.
    pub poll_lines: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            channels: 100,
            idle: Duration::from_secs(60),
            message_bytes: 1 << 20,
            frames: 256,
            pushes: 64,
            broadcasts: 256,
            poll: Duration::from_secs(10),
            poll_session: Duration::from_secs(20),
            poll_lines: 100,
        }
    }
}
