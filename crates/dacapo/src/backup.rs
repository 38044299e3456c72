//! A backup of a log with what lies beside it: what its channels hold, and how far consumers have come.

use std::path::Path;

use dacapo_log::{Backup, Log, Progress};

use crate::error::BackupError;
use crate::schema;

/// Makes a backup of a log in `dst`, or brings one up to date, as [`Log::backup`] does, with what this
/// crate keeps beside the log: the record of what its channels hold, and the cursors of its consumers.
///
/// A cursor that has come further than the backup stands at its end: what it has passed is not in the
/// backup. Blocks, and calls `progress` now and then.
///
/// ```
/// use dacapo::ReplayChannel;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let (orders, copy) = (dir.path().join("orders"), dir.path().join("copy"));
/// let channel = ReplayChannel::<String>::open(&orders)?;
/// channel.sender().send_batch(["tea", "milk"])?;
/// let mut billing = channel.consumer("billing")?;
/// billing.receive_blocking()?;
/// billing.commit()?;
///
/// dacapo::backup(channel.log(), &copy, |_| ())?;
///
/// let copy = ReplayChannel::<String>::open(&copy)?; // from then on a log of its own
/// assert_eq!(copy.consumer("billing")?.receive_blocking()?, "milk");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// See [`BackupError`]. Where only what lies beside the log could not be backed up, the log was.
pub fn backup(
    log: &Log,
    dst: impl AsRef<Path>,
    progress: impl FnMut(Progress),
) -> Result<Backup, BackupError> {
    let dst = dst.as_ref();
    let made = log.backup(dst, progress)?;
    schema::copy(log.dir(), dst).map_err(BackupError::Schemas)?;
    #[cfg(feature = "cursors")]
    copy_cursors(log, dst, &made).map_err(BackupError::Cursors)?;
    Ok(made)
}

#[cfg(feature = "cursors")]
fn copy_cursors(log: &Log, dst: &Path, made: &Backup) -> Result<(), crate::CursorError> {
    use crate::cursors::Cursors;

    let published = Cursors::published(log.dir())?;
    let earlier = Cursors::published(dst)?;
    if published.log_id.is_none() && earlier.log_id.is_none() {
        return Ok(());
    }
    let copies = Cursors::open(dst, log.id())?;
    for cursor in &published.cursors {
        let mut position = cursor.position();
        position.checkpoint.offset = position.checkpoint.offset.min(made.next);
        if copies.get(&cursor.name).map(|copy| copy.position()) != Some(position.clone()) {
            copies.set(&cursor.name, position)?;
        }
    }
    for copy in copies.list() {
        let is_it = |cursor: &crate::Cursor| cursor.name == copy.name;
        if !published.cursors.iter().any(is_it) {
            copies.delete(&copy.name)?;
        }
    }
    Ok(())
}
