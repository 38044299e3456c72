//! Who sent a record, and as which of its messages: what makes a repetition recognisable.

/// A producer's mark on a record or a batch, by which a repetition is recognised.
///
/// A producer numbers its appends with `sequence`, from 0, and resends under the same number what it
/// has no answer for. A producer that begins anew takes a higher `epoch`, which fences off the one
/// before it. See [`Log::append_once`](crate::Log::append_once).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Which producer. Large enough for a random number, or a strong hash of a name.
    pub producer: u128,
    /// How often the producer has begun anew.
    pub epoch: u64,
    /// The number of the append within the epoch.
    pub sequence: u64,
}
