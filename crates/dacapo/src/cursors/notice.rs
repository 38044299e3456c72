//! What was amiss with stored cursors, and is mended: worth a line in a server's own log.

use std::path::PathBuf;

use dacapo_log::Checkpoint;

/// Something was amiss when the cursors were opened, and was mended: `Display` says what it means.
///
/// A position that is not the newest lies before it, never behind: messages come a second time, and
/// none is left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreNotice {
    /// The list is gone, and was made again from the store.
    #[error("{} is gone; {cursors} cursors are taken from the store, as they were when it was last written", path.display())]
    ListGone {
        /// The list.
        path: PathBuf,
        /// How many cursors the store held.
        cursors: usize,
    },
    /// The list's header is damaged, and was written again.
    #[error("the header of {} is damaged; it is written again", path.display())]
    HeaderDamaged {
        /// The list.
        path: PathBuf,
    },
    /// One of a cursor's two places in the list is torn by a power cut, or damaged, and was written
    /// again.
    #[error("{} is torn or damaged at byte {position}: cursor {name:?} goes on {}, which may be before its newest commit", path.display(), at(checkpoint))]
    SlotDamaged {
        /// The list.
        path: PathBuf,
        /// Where the damaged place begins.
        position: u64,
        /// The cursor's name.
        name: String,
        /// Where it is now.
        checkpoint: Checkpoint,
    },
    /// A cursor is no longer in the list, and was taken from the store.
    #[error("cursor {name:?} is missing in {}; it goes on {} from the store, which may be before its newest commit", path.display(), at(checkpoint))]
    Restored {
        /// The list.
        path: PathBuf,
        /// The cursor's name.
        name: String,
        /// Where it is now.
        checkpoint: Checkpoint,
    },
    /// A place in the list cannot be read, and the store knows of no cursor there: there was none, or
    /// it is lost, and its consumer begins with the oldest record.
    #[error("{} is damaged at byte {position}: whose cursor that was is not known, and a consumer that finds none begins with the oldest record", path.display())]
    PlaceLost {
        /// The list.
        path: PathBuf,
        /// Where the damaged place begins.
        position: u64,
    },
    /// The store is behind what it is known to have held, or gone, and was filled again from the list.
    /// No position is lost.
    #[error("the store in {} has lost {cursors} cursors, or newer positions of them; it is filled again from the list, and no position is lost", path.display())]
    StoreOlder {
        /// The store.
        path: PathBuf,
        /// How many cursors it held older than it should, or not at all.
        cursors: usize,
    },
    /// A cursor in the store fails its checksum. The list's is taken where it has one.
    #[error("the store in {} holds a damaged cursor under the key {key:?}; the list's is taken, if it has one", path.display())]
    StoreEntryDamaged {
        /// The store.
        path: PathBuf,
        /// The key that it is stored under, mostly its name.
        key: String,
    },
}

fn at(checkpoint: &Checkpoint) -> String {
    format!("at offset {}", checkpoint.offset)
}
