//! `GET`: catching up, and waiting for what comes next.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State as Extract};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dacapo_log::{Log, Offset};

use super::content::Content;
use super::place::From;
use super::reader::{self, Page, Reader, View};
use super::service::{self, Service, present};
use super::stream::Stream;
use super::{cursor, headers, place, sse};
use crate::auth::Identity;
use crate::problem::Problem;

/// The parameters of a read.
#[derive(Debug, Default)]
struct Asked {
    offset: Option<From>,
    live: Option<Live>,
    cursor: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Live {
    LongPoll,
    Sse,
}

/// A stream that is about to be read.
pub(crate) struct Reading {
    pub(crate) content_type: String,
    pub(crate) reader: Reader,
    /// The offset that it begins at, whether or not it has data there.
    from: Offset,
    created: Offset,
    /// Who asks for what comes from now on gets none of what there is.
    is_at_tail: bool,
}

pub(crate) async fn get(
    Extract(service): Extract<Arc<Service>>,
    Path(name): Path<String>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    identity: Option<Extension<Identity>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let mut asked = Asked::parse(&query)?;
    if asked.live == Some(Live::Sse) {
        asked.offset = resumed_from(&headers)?.or(asked.offset);
    }
    let (live, from) = (asked.live, asked.offset);
    if live.is_some() && from.is_none() {
        return Err(Problem::bad_request("a live read needs an offset"));
    }
    let stream = service.open(&name).await?;
    let from = from.unwrap_or(From::Start);
    let reading = begin(&service, &stream, from, live.is_some()).await?;
    match live {
        None => catch_up(&service, reading, &headers).await,
        Some(Live::LongPoll) => long_poll(&service, reading, asked.cursor, &headers).await,
        Some(Live::Sse) => {
            let identity = identity.map(|Extension(identity)| identity);
            sse::response(service, reading, asked.cursor, identity.as_ref())
        }
    }
}

impl Asked {
    fn parse(query: &[(String, String)]) -> Result<Self, Problem> {
        let mut asked = Self::default();
        for (name, value) in query {
            match name.as_str() {
                "offset" if asked.offset.is_some() => {
                    return Err(Problem::bad_request("there is more than one offset"));
                }
                "offset" => asked.offset = Some(parse_offset(value)?),
                "live" => {
                    asked.live = Some(match value.as_str() {
                        "long-poll" => Live::LongPoll,
                        "sse" => Live::Sse,
                        _ => return Err(Problem::bad_request("live is `long-poll` or `sse`")),
                    });
                }
                "cursor" => asked.cursor = value.parse().ok(),
                _ => {}
            }
        }
        Ok(asked)
    }
}

fn parse_offset(text: &str) -> Result<From, Problem> {
    From::parse(text).ok_or_else(|| {
        Problem::bad_request(
            "the offset is none of a stream's; it is -1, now, or a Stream-Next-Offset",
        )
    })
}

/// Where an `EventSource` goes on that comes back by itself.
fn resumed_from(headers: &HeaderMap) -> Result<Option<From>, Problem> {
    let Some(id) = headers.get("last-event-id").filter(|id| !id.is_empty()) else {
        return Ok(None);
    };
    parse_offset(id.to_str().unwrap_or_default()).map(Some)
}

async fn begin(
    service: &Service,
    stream: &Stream,
    from: From,
    is_live: bool,
) -> Result<Reading, Problem> {
    let (mut reading, settle) = {
        let mut slot = stream.lock();
        let present = present(&mut slot)?;
        present.renew(&service.log, stream);
        let (first, tail) = (present.first(), present.tail);
        let (next, settle) = match from {
            // What retention has dropped is no longer the stream's.
            From::Start => (first.max(service.log.oldest()), present.created.next()),
            From::Now => (tail, present.end),
            From::At(offset) if offset < first => {
                let detail =
                    "the offset lies before the stream's first one; read it from the start";
                return Err(Problem::new(StatusCode::GONE, detail));
            }
            From::At(offset) if offset > tail => {
                return Err(Problem::bad_request(
                    "the offset lies behind the stream's tail",
                ));
            }
            From::At(offset) => (offset, present.created.next()),
        };
        let state = &present.state;
        let durable = service.log.durable_offset();
        let inherited = state.fork.as_ref().map(|fork| fork.parts.clone());
        let view = View {
            data: stream.data.clone(),
            control: stream.control.clone(),
            is_json: headers::is_json(&state.content_type),
            inherited: inherited.unwrap_or_default(),
            begin: present.created.next(),
            is_closed: present
                .closed_at
                .is_some_and(|at| at <= durable.max(settle)),
        };
        let reading = Reading {
            content_type: state.content_type.clone(),
            reader: Reader::new(service.log.clone(), view, next, is_live),
            from: next,
            created: present.created,
            is_at_tail: from == From::Now,
        };
        (reading, settle)
    };
    service.settled(settle).await?;
    if from == From::Start {
        reading.from = Offset::ZERO;
    }
    Ok(reading)
}

async fn catch_up(
    service: &Service,
    reading: Reading,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let Reading {
        content_type,
        reader,
        from,
        created,
        is_at_tail,
    } = reading;
    if is_at_tail {
        let page = Page {
            content: Content::new(headers::is_json(&content_type)),
            is_up_to_date: true,
            is_last: reader.is_closed(),
            is_gone: false,
            next: reader.next_offset(),
        };
        return data(service, &content_type, page, None, headers);
    }
    let (_, page) = reader::page_of(reader, service.config.page_bytes_max.max(1)).await?;
    let tag = tag(&service.log, created, from, &page);
    data(service, &content_type, page, Some(tag), headers)
}

async fn long_poll(
    service: &Service,
    reading: Reading,
    cursor: Option<u64>,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let _place = service.config.subscriptions.subscribe()?;
    let _subscribed = service.config.metrics.subscribed();
    let bytes_max = service.config.page_bytes_max.max(1);
    let Reading {
        content_type,
        reader,
        from,
        created,
        ..
    } = reading;
    let (mut reader, mut page) = reader::page_of(reader, bytes_max).await?;
    if page.content.messages == 0 && !page.is_last && !page.is_gone {
        let timeout = service.config.long_poll_timeout;
        page = tokio::select! {
            page = reader.wait(bytes_max) => page?,
            () = tokio::time::sleep(timeout) => page,
            () = service.config.shutdown.cancelled() => page,
        };
    }
    if page.is_gone {
        return Err(service::not_found());
    }
    let cursor = HeaderValue::from(cursor::next(SystemTime::now(), cursor));
    let mut response = match page.content.messages {
        0 => {
            let mut response = StatusCode::NO_CONTENT.into_response();
            let answer = response.headers_mut();
            describe(answer, &page);
            answer.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        _ => {
            let tag = tag(&service.log, created, from, &page);
            data(service, &content_type, page, Some(tag), headers)?
        }
    };
    response.headers_mut().insert(headers::CURSOR, cursor);
    Ok(response)
}

/// Names a page: it changes with its bytes, and with what its headers say of the stream's end. Another log
/// has other pages, at the same URL too.
fn tag(log: &Log, created: Offset, from: Offset, page: &Page) -> String {
    let end = match (page.is_last, page.is_up_to_date) {
        (true, _) => "c",
        (false, true) => "t",
        (false, false) => "",
    };
    format!("\"{:x}-{created}-{from}-{}{end}\"", log.id(), page.next)
}

fn describe(headers: &mut HeaderMap, page: &Page) {
    let yes = HeaderValue::from_static("true");
    headers.insert(headers::NEXT_OFFSET, place::header_of(page.next));
    if page.is_up_to_date {
        headers.insert(headers::UP_TO_DATE, yes.clone());
    }
    if page.is_last {
        headers.insert(headers::CLOSED, yes);
    }
}

/// A page as a response; `tag` is none of what is not to be cached.
fn data(
    service: &Service,
    content_type: &str,
    page: Page,
    tag: Option<String>,
    asked: &HeaderMap,
) -> Result<Response, Problem> {
    if page.is_gone {
        return Err(service::not_found());
    }
    let mut answer = HeaderMap::new();
    describe(&mut answer, &page);
    let content_type = HeaderValue::try_from(content_type);
    answer.insert(
        CONTENT_TYPE,
        content_type.map_err(|error| Problem::internal(&error))?,
    );
    let caching = match (&tag, service.config.private) {
        (None, _) => "no-store",
        (Some(_), true) => "private, max-age=60, stale-while-revalidate=300",
        (Some(_), false) => "public, max-age=60, stale-while-revalidate=300",
    };
    answer.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    if let Some(tag) = tag {
        let is_known = asked
            .get_all(IF_NONE_MATCH)
            .iter()
            .any(|known| matches(known, &tag));
        let tag = HeaderValue::try_from(tag).expect("digits and dashes");
        answer.insert(ETAG, tag);
        if is_known {
            return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
        }
    }
    let chunks = page.content.finish();
    let bytes: usize = chunks.iter().map(Bytes::len).sum();
    answer.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    Ok((answer, body_of(chunks)).into_response())
}

fn body_of(mut chunks: Vec<Bytes>) -> Body {
    match chunks.len() {
        0 => Body::empty(),
        1 => Body::from(chunks.remove(0)),
        _ => Body::from_stream(futures_util::stream::iter(
            chunks.into_iter().map(Ok::<_, std::convert::Infallible>),
        )),
    }
}

/// Whether an `If-None-Match` names the tag.
fn matches(known: &HeaderValue, tag: &str) -> bool {
    let known = known.to_str().unwrap_or_default();
    known
        .split(',')
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_among_others_also_where_it_is_weak() {
        let matches = |known| matches(&HeaderValue::from_static(known), "\"1-2-3\"");
        assert!(matches("\"1-2-3\"") && matches("\"x\", W/\"1-2-3\"") && matches("*"));
        assert!(!matches("\"1-2-3c\"") && !matches("1-2-3"));
    }

    #[test]
    fn a_read_has_one_offset_at_most() {
        let parse = |text: &[(&str, &str)]| {
            let owned = text
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Asked::parse(&owned.collect::<Vec<_>>())
        };
        assert_eq!(parse(&[("x", "y")]).unwrap().offset, None);
        assert_eq!(
            parse(&[("offset", "-1")]).unwrap().offset,
            Some(From::Start)
        );
        assert!(parse(&[("offset", "-1"), ("offset", "-1")]).is_err());
        assert!(parse(&[("offset", "")]).is_err());
        assert!(parse(&[("live", "yes")]).is_err());
    }
}
