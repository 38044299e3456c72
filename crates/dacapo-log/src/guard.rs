//! What stands between a crash and the records, by name.
//!
//! In a real log every guard stands: the questions below vanish when it is compiled. The simulator
//! takes one out at a time, and must then find records lost or wrong.

/// A step or a mark without which some crash would break an invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(simulation),
    expect(dead_code, reason = "two are asked for by the simulated disk only")
)]
pub(crate) enum Guard {
    /// Checksums are salted with a number of their segment's own.
    ChecksumSalt,
    /// After an unclean end the log goes on in a new segment.
    NewSegmentAfterUncleanEnd,
    /// Names are synced.
    DirectorySync,
    /// What recovery finds is synced before it is believed.
    SyncBeforeTrust,
    /// Records of a batch say that the batch goes on.
    BatchEndMark,
    /// `meta` says that segments are gone before they go.
    MetaBeforeUnlink,
    /// What a producer resends is not appended again.
    RepetitionRefused,
}

#[cfg(not(simulation))]
#[inline]
pub(crate) const fn stands(_: Guard) -> bool {
    true
}

#[cfg(simulation)]
pub(crate) use crate::simulation::guards::stands;
