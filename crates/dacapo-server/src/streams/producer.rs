//! Idempotent producers: whether an append is new, a repetition, or not to be.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::headers;
use crate::problem::Problem;

/// The largest number that a JavaScript client can count to.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Who makes an append, and which of its appends it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) id: String,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
}

/// The newest append of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Newest {
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
}

/// What an append is, by what is known of its producer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    New,
    Repeated,
    Fenced {
        current: u64,
    },
    /// An epoch begins with 0.
    NotBegun,
    Gap {
        expected: u64,
    },
}

impl Claim {
    /// What a request says of its producer: all of it, or nothing.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let id = headers::text(headers, &headers::PRODUCER_ID)?;
        let epoch = headers::text(headers, &headers::PRODUCER_EPOCH)?;
        let seq = headers::text(headers, &headers::PRODUCER_SEQ)?;
        match (id, epoch, seq) {
            (None, None, None) => Ok(None),
            (Some(""), Some(_), Some(_)) => Err(Problem::bad_request("Producer-Id is empty")),
            (Some(id), Some(epoch), Some(seq)) => Ok(Some(Self {
                id: id.to_owned(),
                epoch: number(&headers::PRODUCER_EPOCH, epoch)?,
                seq: number(&headers::PRODUCER_SEQ, seq)?,
            })),
            _ => Err(Problem::bad_request(
                "Producer-Id, Producer-Epoch and Producer-Seq come together; one is missing",
            )),
        }
    }

    /// What this append is, the producer's newest one being `newest`.
    pub(crate) fn judge(&self, newest: Option<Newest>) -> Verdict {
        match newest {
            None if self.seq == 0 => Verdict::New,
            None => Verdict::Gap { expected: 0 },
            Some(newest) if self.epoch < newest.epoch => Verdict::Fenced {
                current: newest.epoch,
            },
            Some(newest) if self.epoch > newest.epoch && self.seq == 0 => Verdict::New,
            Some(newest) if self.epoch > newest.epoch => Verdict::NotBegun,
            Some(newest) if self.seq <= newest.seq => Verdict::Repeated,
            Some(newest) if self.seq == newest.seq + 1 => Verdict::New,
            Some(newest) => Verdict::Gap {
                expected: newest.seq + 1,
            },
        }
    }

    /// What is answered to an append that is neither new nor repeated.
    pub(crate) fn refusal(&self, verdict: &Verdict) -> Option<Problem> {
        match *verdict {
            Verdict::New | Verdict::Repeated => None,
            Verdict::Fenced { current } => {
                let detail = format!(
                    "epoch {} of the producer is fenced off by epoch {current}; stop, or begin a higher one with sequence 0",
                    self.epoch
                );
                let problem = Problem::new(StatusCode::FORBIDDEN, detail);
                Some(problem.with(headers::PRODUCER_EPOCH, HeaderValue::from(current)))
            }
            Verdict::NotBegun => Some(Problem::bad_request(format!(
                "epoch {} begins with sequence 0, and not {}",
                self.epoch, self.seq
            ))),
            Verdict::Gap { expected } => {
                let detail = format!(
                    "the producer's next sequence is {expected}, and not {}",
                    self.seq
                );
                let problem = Problem::conflict(detail)
                    .with(headers::EXPECTED_SEQ, HeaderValue::from(expected))
                    .with(headers::RECEIVED_SEQ, HeaderValue::from(self.seq));
                Some(problem)
            }
        }
    }
}

fn number(name: &HeaderName, text: &str) -> Result<u64, Problem> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text
        .parse()
        .ok()
        .filter(|&number| is_plain && number <= NUMBER_MAX);
    number.ok_or_else(|| {
        Problem::bad_request(format!("{name} is a whole number of 0 to {NUMBER_MAX}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(epoch: u64, seq: u64, newest: Option<(u64, u64)>) -> Verdict {
        let id = "p".to_owned();
        let newest = newest.map(|(epoch, seq)| Newest { epoch, seq });
        Claim { id, epoch, seq }.judge(newest)
    }

    #[test]
    fn a_producer_begins_with_sequence_0_and_goes_on_one_by_one() {
        assert_eq!(judge(0, 0, None), Verdict::New);
        assert_eq!(judge(7, 3, None), Verdict::Gap { expected: 0 });
        assert_eq!(judge(0, 4, Some((0, 3))), Verdict::New);
        assert_eq!(judge(0, 5, Some((0, 3))), Verdict::Gap { expected: 4 });
    }

    #[test]
    fn what_was_appended_before_is_a_repetition() {
        assert_eq!(judge(0, 3, Some((0, 3))), Verdict::Repeated);
        assert_eq!(judge(0, 0, Some((0, 3))), Verdict::Repeated);
    }

    #[test]
    fn a_higher_epoch_fences_the_lower_ones_off() {
        assert_eq!(judge(2, 0, Some((1, 3))), Verdict::New);
        assert_eq!(judge(2, 1, Some((1, 3))), Verdict::NotBegun);
        assert_eq!(judge(1, 4, Some((2, 0))), Verdict::Fenced { current: 2 });
    }

    #[test]
    fn numbers_are_those_that_a_client_can_count_to() {
        let name = &headers::PRODUCER_SEQ;
        assert_eq!(number(name, "9007199254740991").unwrap(), NUMBER_MAX);
        for text in ["", "-1", "+1", "1.0", "1e3", "9007199254740992"] {
            assert!(number(name, text).is_err(), "{text}");
        }
    }
}
