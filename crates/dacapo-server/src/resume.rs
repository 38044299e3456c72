//! Where a client goes on: what it says, and the place in the log that it means.
//!
//! An id is a plain number: an offset of the log, or, in the [`realtime`](crate::realtime) face, the
//! number of an event counted from 1. It carries no epoch, so that people can read it, and so that ids
//! which clients have kept stay good. What a number alone cannot show is that a power cut undid a message
//! and another one took its id: serve [`durable_only`](dacapo::Subscription::durable_only), and no client
//! has ever seen such a message. An id beyond the end of the log is noticed in any case, and answered
//! with a gap event.

use dacapo::{Offset, Start};

/// Where to go on for a client of SSE that says this: behind the message whose offset it names; before
/// the first one for `-1`, which is the position before any message; live only where it says nothing, or
/// what is no such number.
///
/// ```
/// use dacapo::{Offset, Start};
/// use dacapo_server::resume::start_of;
///
/// assert_eq!(start_of(Some("41")), Start::AtOrOldest(Offset::new(42)));
/// assert_eq!(start_of(Some("-1")), Start::AtOrOldest(Offset::ZERO));
/// assert_eq!(start_of(Some("junk")), Start::Latest);
/// assert_eq!(start_of(None), Start::Latest);
/// ```
#[must_use]
pub fn start_of(last_event_id: Option<&str>) -> Start {
    Numbering::OFFSETS.behind(last_event_id)
}

/// How messages are numbered for clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbering {
    /// The number of the record at offset 0.
    first: u64,
}

impl Numbering {
    /// Each message by its offset.
    pub(crate) const OFFSETS: Self = Self { first: 0 };
    /// Counted from 1, so that 0 is the position before any message.
    pub(crate) const FROM_ONE: Self = Self { first: 1 };

    /// The id of the message at `offset`.
    pub(crate) fn id(self, offset: Offset) -> u64 {
        offset.get().saturating_add(self.first)
    }

    /// The id that a client has seen who is to go on at `offset`.
    pub(crate) fn seen_before(self, offset: Offset) -> String {
        match self.id(offset) {
            0 => "-1".to_owned(),
            id => (id - 1).to_string(),
        }
    }

    /// Where a client goes on that has seen this id; live only where it is none.
    pub(crate) fn behind(self, id: Option<&str>) -> Start {
        match id {
            Some("-1") if self.first == 0 => Start::AtOrOldest(Offset::ZERO),
            Some(id) => match number(id) {
                Some(seen) => self.at(seen.saturating_add(1)),
                None => Start::Latest,
            },
            None => Start::Latest,
        }
    }

    /// Where a client begins that names the first message that it wants: by its id, as `oldest`, or as
    /// `latest`, which is what comes. `None` where it names none.
    pub(crate) fn place(self, from: &str) -> Option<Start> {
        match from {
            "oldest" => Some(Start::Oldest),
            "latest" => Some(Start::Latest),
            from => number(from).map(|id| self.at(id)),
        }
    }

    /// Where the message of this id is, or was.
    pub(crate) fn at(self, id: u64) -> Start {
        Start::AtOrOldest(Offset::new(id.saturating_sub(self.first)))
    }
}

/// Digits alone: no sign and no space, of which nothing of ours has any.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Start {
        Start::AtOrOldest(Offset::new(offset))
    }

    #[test]
    fn junk_is_taken_for_nothing() {
        for junk in [
            "",
            " 4",
            "+4",
            "4 ",
            "-2",
            "0x4",
            "4.0",
            "99999999999999999999",
        ] {
            assert_eq!(start_of(Some(junk)), Start::Latest, "{junk:?}");
        }
    }

    #[test]
    fn the_largest_number_is_a_place_beyond_the_end() {
        assert_eq!(start_of(Some("18446744073709551615")), at(u64::MAX));
    }

    #[test]
    fn counted_from_one_zero_is_before_the_first() {
        let numbering = Numbering::FROM_ONE;
        assert_eq!(numbering.behind(Some("0")), at(0));
        assert_eq!(numbering.behind(Some("3")), at(3));
        assert_eq!(numbering.at(1), at(0));
        assert_eq!(numbering.behind(Some("-1")), Start::Latest);
    }

    #[test]
    fn a_client_goes_on_where_its_position_says() {
        for numbering in [Numbering::OFFSETS, Numbering::FROM_ONE] {
            for offset in [0, 1, 41] {
                let seen = numbering.seen_before(Offset::new(offset));
                assert_eq!(numbering.behind(Some(&seen)), at(offset), "{numbering:?}");
            }
        }
    }
}
