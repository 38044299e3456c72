//! Forks: streams that begin with what another one holds up to some place.
//!
//! A fork names the records that it has from others, and copies nothing, but for nothing at all: also
//! where it takes a part of a record only.

use axum::http::HeaderMap;
use dacapo_log::{Log, Offset, Start, Topic};

use super::state::{Fork, Part};
use super::stream::{Present, Stream};
use super::{ROOT, headers, place};
use crate::problem::Problem;

/// A fork names at most so many pieces of others: how deep forks of forks go.
const PARTS_MAX: usize = 256;

/// Where a fork is asked to begin.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) name: String,
    /// The source's tail where the request does not say.
    offset: Option<Offset>,
    sub_offset: u64,
}

impl Origin {
    pub(crate) fn asked(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let from = headers::text(headers, &headers::FORKED_FROM)?;
        let offset = headers::text(headers, &headers::FORK_OFFSET)?;
        let sub_offset = headers::text(headers, &headers::FORK_SUB_OFFSET)?;
        let Some(from) = from else {
            if offset.is_some() || sub_offset.is_some() {
                return Err(Problem::bad_request(
                    "Stream-Fork-Offset and Stream-Fork-Sub-Offset need a Stream-Forked-From",
                ));
            }
            return Ok(None);
        };
        let Some(name) = super::name_of(from) else {
            return Err(Problem::bad_request(format!(
                "Stream-Forked-From is the path of a stream, {ROOT} and a name"
            )));
        };
        let offset = offset.map(|text| {
            place::parse(text)
                .ok_or_else(|| Problem::bad_request("Stream-Fork-Offset is no offset of a stream"))
        });
        let offset = offset.transpose()?;
        let sub_offset = sub_offset.map_or(Ok(0), sub_offset_of)?;
        if sub_offset > 0 && offset.is_none() {
            return Err(Problem::bad_request(
                "Stream-Fork-Sub-Offset counts from a Stream-Fork-Offset, which is missing",
            ));
        }
        Ok(Some(Self {
            name,
            offset,
            sub_offset,
        }))
    }

    /// Whether `fork` began where this asks for.
    pub(crate) fn is_of(&self, fork: &Fork) -> bool {
        self.name == fork.from
            && self.offset.is_none_or(|offset| offset.get() == fork.offset)
            && self.sub_offset == fork.sub_offset
    }
}

fn sub_offset_of(text: &str) -> Result<u64, Problem> {
    let is_plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let number = text.parse().ok().filter(|_| is_plain);
    number.ok_or_else(|| {
        Problem::bad_request("Stream-Fork-Sub-Offset is a number in plain decimal digits")
    })
}

/// What a fork of `parent` has from it and from those before it.
pub(crate) fn fork_of(
    log: &Log,
    source: &Stream,
    parent: &Present,
    origin: &Origin,
) -> Result<Fork, Problem> {
    let offset = origin.offset.unwrap_or(parent.tail);
    if offset > parent.tail {
        return Err(Problem::bad_request(format!(
            "Stream-Fork-Offset lies beyond the source's tail, {}",
            place::text_of(parent.tail)
        )));
    }
    let all = parent.parts(&source.data);
    let mut parts = before(&all, offset);
    if origin.sub_offset > 0 {
        let is_json = headers::is_json(&parent.state.content_type);
        let Some((to, last_bytes)) = within(log, &all, offset, origin.sub_offset, is_json)? else {
            return Err(Problem::bad_request(
                "Stream-Fork-Sub-Offset goes beyond the data at Stream-Fork-Offset",
            ));
        };
        parts = before(&all, to);
        if let Some(last) = parts.last_mut().filter(|_| last_bytes.is_some()) {
            last.last_bytes = last_bytes;
        }
    }
    if parts.len() > PARTS_MAX {
        return Err(Problem::bad_request(format!(
            "a fork is made of at most {PARTS_MAX} pieces of other streams; this one would be of {}",
            parts.len()
        )));
    }
    Ok(Fork {
        from: source.data.to_string(),
        offset: offset.get(),
        sub_offset: origin.sub_offset,
        parts,
    })
}

/// What of `parts` lies before an offset.
fn before(parts: &[Part], offset: Offset) -> Vec<Part> {
    let before = parts.iter().filter(|part| part.from < offset.get());
    let cut = before.map(|part| match part.to <= offset.get() {
        true => part.clone(),
        false => Part {
            to: offset.get(),
            last_bytes: None,
            ..part.clone()
        },
    });
    cut.collect()
}

/// The place that lies `sub_offset` behind `offset`: behind which record, and how many bytes of that
/// one, if not all. `None` if there is not so much. In JSON it counts messages, and otherwise bytes of
/// the record at `offset`.
fn within(
    log: &Log,
    parts: &[Part],
    offset: Offset,
    sub_offset: u64,
    is_json: bool,
) -> Result<Option<(Offset, Option<u64>)>, Problem> {
    let mut left = sub_offset;
    for part in parts.iter().filter(|part| part.to > offset.get()) {
        let topic = Topic::new(&part.topic).map_err(|error| Problem::internal(&error))?;
        let start = Start::At(offset.max(Offset::new(part.from)));
        for record in log.replay(start).topic(&topic) {
            let record = record?;
            let behind = record.offset().next();
            if behind.get() > part.to {
                break;
            }
            if !is_json {
                let last = part.last_bytes.filter(|_| behind.get() == part.to);
                let bytes = last.unwrap_or(record.payload().len() as u64);
                return Ok((left <= bytes).then_some((behind, Some(left))));
            }
            left -= 1;
            if left == 0 {
                return Ok(Some((behind, None)));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(topic: &str, from: u64, to: u64, last_bytes: Option<u64>) -> Part {
        Part {
            topic: topic.to_owned(),
            from,
            to,
            last_bytes,
        }
    }

    #[test]
    fn a_fork_of_a_fork_is_cut_where_it_begins_and_keeps_the_cuts_before() {
        let all = [part("a", 1, 5, Some(3)), part("b", 7, 9, None)];
        assert_eq!(
            before(&all, Offset::new(8)),
            [all[0].clone(), part("b", 7, 8, None)]
        );
        assert_eq!(before(&all, Offset::new(7)), all[..1]);
        // What is before the last record is whole.
        assert_eq!(before(&all, Offset::new(4)), [part("a", 1, 4, None)]);
        assert!(before(&all, Offset::ZERO).is_empty());
    }

    #[test]
    fn a_place_within_the_data_is_found_by_bytes_or_by_messages() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path()).unwrap();
        let topic = Topic::new("a").unwrap();
        log.append_batch_to([(&topic, "hello"), (&topic, "world")])
            .unwrap();
        let all = [part("a", 0, 2, Some(2))];
        let find = |offset, sub_offset, is_json| {
            within(&log, &all, Offset::new(offset), sub_offset, is_json).unwrap()
        };
        assert_eq!(find(0, 3, false), Some((Offset::new(1), Some(3))));
        assert_eq!(find(0, 6, false), None, "no more than the next record");
        assert_eq!(find(1, 2, false), Some((Offset::new(2), Some(2))));
        assert_eq!(
            find(1, 3, false),
            None,
            "of the last record, two bytes are there"
        );
        assert_eq!(find(0, 2, true), Some((Offset::new(2), None)));
        assert_eq!(find(0, 3, true), None);
    }
}
