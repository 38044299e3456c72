//! How many bytes of topics files a record costs.
//!
//! ```console
//! $ cargo run --release -p dacapo-benches --example topics_bytes
//! ```

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use dacapo_benches::payload;
use dacapo_log::{Flush, Log, Topic};

const TOPICS: u64 = 10_000;
const PAYLOAD_BYTES: usize = 100;
/// Sealed ones; the one behind them has no topics file yet.
const SEGMENTS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    for segment_mib in [16, 64] {
        for (order, at_random) in [("in turn", false), ("at random", true)] {
            let (bytes, records) = measured(segment_mib << 20, at_random)?;
            println!(
                "segments of {segment_mib} MiB, {TOPICS} topics {order}: {:.3} bytes a record",
                bytes as f64 / records as f64
            );
        }
    }
    Ok(())
}

/// The bytes of the topics files, and the records that they are for.
fn measured(segment_bytes: u64, at_random: bool) -> Result<(u64, u64), Box<dyn Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let log = Log::options()
        .segment_bytes_min(segment_bytes)
        .segment_bytes_max(segment_bytes)
        .flush(Flush::OnDemand)
        .open(dir.path())?;
    let topics = (0..TOPICS)
        .map(|number| Topic::new(format!("rooms:{number:07}")))
        .collect::<Result<Vec<_>, _>>()?;
    let payload = payload(PAYLOAD_BYTES);
    let mut random = 1_u64;
    while files(dir.path(), "seg")?.len() <= SEGMENTS {
        for number in 0..TOPICS {
            // xorshift64 (Marsaglia: Xorshift RNGs, 2003).
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let number = if at_random { random % TOPICS } else { number };
            log.append_to(&topics[usize::try_from(number)?], &payload)?;
        }
    }
    log.close()?;
    let mut bytes = 0;
    for file in files(dir.path(), "topics")? {
        bytes += file.metadata()?.len();
    }
    // The last segment is not sealed, and its name is the number of records before it.
    let last = files(dir.path(), "seg")?
        .into_iter()
        .max()
        .ok_or("no segment")?;
    let base = last.file_stem().and_then(|stem| stem.to_str());
    Ok((bytes, base.ok_or("a segment without a name")?.parse()?))
}

fn files(dir: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == extension) {
            files.push(path);
        }
    }
    Ok(files)
}
