//! What the channels of a log hold, recorded beside it: a guard against reading one type as another.
//!
//! It stands in a file, and not in a record, because retention drops records. No message depends on
//! it: without the file, channels are taken for what they are next opened for.

use std::any::type_name;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use dacapo_log::Topic;
use serde::{Deserialize, Serialize};

use crate::error::{OpenError, SchemaMismatch};

/// In the log's directory.
const FILE: &str = "channels.json";

/// What a channel holds, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// The codec's name.
    pub codec: String,
    /// What the messages are called.
    #[serde(rename = "schema")]
    pub name: String,
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` in {}", self.name, self.codec)
    }
}

/// The file: what each channel holds, by its topic; that without a topic under the empty name. A name
/// that ends in `*` is of all topics that begin with what is before it, as broadcasters have them.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Channels {
    channels: BTreeMap<String, Schema>,
}

/// Channels of one log may be opened by several threads at once.
static RECORDING: Mutex<()> = Mutex::new(());

/// Compares what a channel is opened for with what it holds, by its own name and by those that share
/// topics with it, and records it where nothing is recorded yet, or where it `replaces` that. A log that
/// is read only is not written to.
pub(crate) fn check(
    dir: &Path,
    topic: Option<&Topic>,
    opened: Schema,
    replaces: bool,
    read_only: bool,
) -> Result<(), OpenError> {
    let _recording = RECORDING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut recorded = read(dir)?;
    let key = topic.map_or("", Topic::as_str);
    let mut changed = recorded.channels.get(key) != Some(&opened);
    let others = recorded
        .channels
        .iter_mut()
        .filter(|(other, known)| share_topics(other, key) && **known != opened);
    for (other, known) in others {
        if !replaces {
            return Err(Box::new(SchemaMismatch {
                topic: topic.cloned(),
                path: dir.join(FILE),
                recorded_for: Topic::new(other).ok(),
                recorded: known.clone(),
                opened: opened.clone(),
            })
            .into());
        }
        known.clone_from(&opened);
        changed = true;
    }
    if read_only || !changed {
        return Ok(());
    }
    recorded.channels.insert(key.to_owned(), opened);
    write(dir, &recorded)
}

/// Whether a message may be of both.
fn share_topics(one: &str, other: &str) -> bool {
    match (one.strip_suffix('*'), other.strip_suffix('*')) {
        _ if one == other => true,
        // That without a topic shares none.
        _ if one.is_empty() || other.is_empty() => false,
        (Some(one), Some(other)) => one.starts_with(other) || other.starts_with(one),
        (Some(prefix), None) => other.starts_with(prefix),
        (None, Some(prefix)) => one.starts_with(prefix),
        (None, None) => false,
    }
}

/// Copies the record to a backup of the log.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), OpenError> {
    let recorded = read(from)?;
    match recorded.channels.is_empty() {
        true => Ok(()),
        false => write(to, &recorded),
    }
}

fn read(dir: &Path) -> Result<Channels, OpenError> {
    let path = dir.join(FILE);
    match fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|source| OpenError::SchemaFile { path, source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Channels::default()),
        Err(error) => Err(failed("read", &path, error)),
    }
}

/// Replaces the file: a crash leaves the old one or the new one.
fn write(dir: &Path, channels: &Channels) -> Result<(), OpenError> {
    let path = dir.join(FILE);
    let temporary = dir.join("channels.json.tmp");
    let mut text = serde_json::to_vec_pretty(channels).expect("names are text");
    text.push(b'\n');
    let store = || {
        let mut file = File::create(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()
    };
    store().map_err(|error| failed("write", &path, error))
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// The name of a type without its modules, which change more often than it does: `Vec<Order>`.
pub(crate) fn name_of<T>() -> String {
    short_name(type_name::<T>())
}

fn short_name(full: &str) -> String {
    let mut short = String::new();
    let mut word = 0; // where the path at hand begins in `short`
    for part in full.split_inclusive(|c: char| !(c.is_alphanumeric() || c == '_')) {
        short.push_str(part);
        if short.ends_with("::") {
            short.truncate(word);
        } else if !part.ends_with(':') && !part.ends_with(|c: char| c.is_alphanumeric() || c == '_')
        {
            word = short.len();
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_share_topics_where_one_begins_with_the_prefix_of_the_other() {
        for (one, other, share) in [
            ("rooms:*", "rooms:lobby", true),
            ("rooms:*", "rooms:", true),
            ("rooms:*", "rooms:suite:*", true),
            ("rooms:*", "users:*", false),
            ("rooms:*", "room", false),
            ("*", "users", true),
            ("*", "rooms:*", true),
            ("*", "", false),
            ("rooms", "rooms:lobby", false),
            ("", "", true),
            ("", "users", false),
            ("users", "users", true),
        ] {
            assert_eq!(share_topics(one, other), share, "{one} {other}");
            assert_eq!(share_topics(other, one), share, "{other} {one}");
        }
    }

    #[test]
    fn a_name_is_shortened_by_its_modules() {
        for (full, short) in [
            ("u64", "u64"),
            ("shop::orders::Order", "Order"),
            ("alloc::vec::Vec<shop::Order>", "Vec<Order>"),
            ("(alloc::string::String, [u8; 3])", "(String, [u8; 3])"),
            ("&'static core::ffi::CStr", "&'static CStr"),
            (
                "std::collections::HashMap<a::b::K, &mut c::V_2>",
                "HashMap<K, &mut V_2>",
            ),
        ] {
            assert_eq!(short_name(full), short);
        }
    }
}
