//! How long a stream lives: for ever, for a while after it was last used, or until a moment.

use axum::http::HeaderMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::headers;
use crate::problem::Problem;

/// A use is stored once so many parts of the time to live have passed since the last one that was.
const RENEWALS: u64 = 8;

const MICROS: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Lifetime {
    #[default]
    Endless,
    /// So many seconds after its last use.
    TtlSeconds(u64),
    /// In microseconds since the Unix epoch.
    ExpiresAtMicros(i64),
}

impl Lifetime {
    /// What a request asks for; `None` where it says nothing.
    pub(crate) fn asked(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let ttl = headers::text(headers, &headers::TTL)?;
        let expires_at = headers::text(headers, &headers::EXPIRES_AT)?;
        match (ttl, expires_at) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(Problem::bad_request(
                "Stream-TTL and Stream-Expires-At exclude each other; send one of them",
            )),
            (Some(ttl), None) => seconds(ttl).map(|ttl| Some(Self::TtlSeconds(ttl))),
            (None, Some(text)) => match text.parse::<Timestamp>() {
                Ok(at) => Ok(Some(Self::ExpiresAtMicros(at.as_microsecond()))),
                Err(error) => Err(Problem::bad_request(format!(
                    "Stream-Expires-At is no time of RFC 3339: {error}"
                ))),
            },
        }
    }

    /// Whether it is over, of a stream that was last used at `used_micros`.
    pub(crate) fn is_over(self, used_micros: u64, now_micros: u64) -> bool {
        match self {
            Self::Endless => false,
            Self::TtlSeconds(ttl) => {
                used_micros.saturating_add(ttl.saturating_mul(MICROS)) <= now_micros
            }
            Self::ExpiresAtMicros(at) => u64::try_from(at).unwrap_or(0) <= now_micros,
        }
    }

    /// Whether a use at `now_micros` is to be stored, the last one that was being at `stored_micros`.
    pub(crate) fn is_to_be_stored(self, stored_micros: u64, now_micros: u64) -> bool {
        match self {
            Self::TtlSeconds(_) => {
                now_micros.saturating_sub(stored_micros) > self.unstored_micros()
            }
            _ => false,
        }
    }

    /// How much later than stored a stream may have been used.
    pub(crate) fn unstored_micros(self) -> u64 {
        match self {
            Self::TtlSeconds(ttl) => ttl.saturating_mul(MICROS) / RENEWALS,
            _ => 0,
        }
    }

    /// The moment as RFC 3339, of a stream that has one.
    pub(crate) fn expires_at(self) -> Option<String> {
        match self {
            Self::ExpiresAtMicros(at) => Timestamp::from_microsecond(at)
                .ok()
                .map(|at| at.to_string()),
            _ => None,
        }
    }
}

/// Plain decimal digits: no sign, no leading zero, no point, no exponent.
fn seconds(text: &str) -> Result<u64, Problem> {
    let is_plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let seconds = text.parse().ok().filter(|_| is_plain);
    seconds.ok_or_else(|| {
        Problem::bad_request(
            "Stream-TTL is a number of seconds in plain decimal digits, such as 3600",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_plain_decimal_digits() {
        assert_eq!(seconds("3600").unwrap(), 3600);
        assert_eq!(seconds("0").unwrap(), 0);
        for text in [
            "",
            "+1",
            "-1",
            "01",
            "1.5",
            "1e3",
            " 1",
            "99999999999999999999",
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_to_live_begins_with_each_use() {
        let lifetime = Lifetime::TtlSeconds(8);
        assert!(!lifetime.is_over(5 * MICROS, 13 * MICROS - 1));
        assert!(lifetime.is_over(5 * MICROS, 13 * MICROS));
        assert!(!lifetime.is_to_be_stored(5 * MICROS, 6 * MICROS));
        assert!(lifetime.is_to_be_stored(5 * MICROS, 6 * MICROS + 1));
    }

    #[test]
    fn a_moment_does_not_move() {
        let lifetime = Lifetime::ExpiresAtMicros(1_500_000);
        assert!(lifetime.is_over(u64::MAX, 1_500_000));
        assert!(!lifetime.is_over(0, 1_499_999));
        assert_eq!(lifetime.expires_at().unwrap(), "1970-01-01T00:00:01.5Z");
    }
}
