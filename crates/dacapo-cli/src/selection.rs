//! Which topics `cat` and `tail` print.

use dacapo_log::{Replay, Tailer, Topic};

// No doc comment: clap would take it for that of the command.
#[derive(clap::Args)]
pub(crate) struct Selection {
    /// Only the records of this topic; may be given more than once
    #[arg(long = "topic", value_name = "NAME")]
    topics: Vec<Topic>,

    /// Only the records of topics that begin with this; may be given more than once, and with
    /// --topic
    #[arg(long = "prefix", value_name = "TEXT")]
    prefixes: Vec<String>,
}

impl Selection {
    pub(crate) fn of_replay(&self, mut replay: Replay) -> Replay {
        for topic in &self.topics {
            replay = replay.topic(topic);
        }
        for prefix in &self.prefixes {
            replay = replay.prefix(prefix);
        }
        replay
    }

    pub(crate) fn of_tailer(&self, mut tailer: Tailer) -> Tailer {
        for topic in &self.topics {
            tailer = tailer.topic(topic);
        }
        for prefix in &self.prefixes {
            tailer = tailer.prefix(prefix);
        }
        tailer
    }
}
