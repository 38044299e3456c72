//! Places in a stream, as clients see them: the log's offsets as text of a fixed width.

use axum::http::HeaderValue;
use dacapo_log::Offset;

/// Digits of each of the two numbers.
const DIGITS: usize = 16;

/// The text of an offset: it sorts as the offset does, up to 10^16 records.
///
/// Two numbers, as other servers of this protocol write them: the second one would be a place within
/// a record, and is always 0.
pub(crate) fn text_of(offset: Offset) -> String {
    format!("{:0DIGITS$}_{:0DIGITS$}", offset.get(), 0)
}

pub(crate) fn header_of(offset: Offset) -> HeaderValue {
    HeaderValue::try_from(text_of(offset)).expect("digits")
}

/// Reads what [`text_of`] wrote. `None` for anything else.
pub(crate) fn parse(text: &str) -> Option<Offset> {
    let (record, within) = text.split_once('_')?;
    let number = |digits: &str| {
        let is_number = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse::<u64>().ok()).flatten()
    };
    number(within)?;
    number(record).map(Offset::new)
}

/// Where a read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Start,
    Now,
    At(Offset),
}

impl From {
    /// Reads the parameter `offset`. `None` where it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "-1" => Some(Self::Start),
            "now" => Some(Self::Now),
            // No record of a stream has it: the stream's creation stands before its first one.
            text => parse(text).map(|offset| match offset {
                Offset::ZERO => Self::Start,
                offset => Self::At(offset),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_offsets_sorts_as_they_do_and_comes_back() {
        let offsets = [0, 9, 10, 4711, 9_999_999_999_999_999].map(Offset::new);
        let texts = offsets.map(text_of);
        assert!(texts.is_sorted());
        assert_eq!(texts[1], "0000000000000009_0000000000000000");
        assert_eq!(texts.map(|text| parse(&text).unwrap()), offsets);
    }

    #[test]
    fn what_no_server_wrote_is_no_offset() {
        for text in [
            "",
            "7",
            "+000000000000001_0000000000000000",
            "now ",
            "0,0",
            "_",
        ] {
            assert_eq!(From::parse(text), None, "{text}");
        }
        assert_eq!(From::parse("-1"), Some(From::Start));
        let zero = text_of(Offset::ZERO);
        assert_eq!(From::parse(&zero), Some(From::Start));
    }
}
