//! `PUT`: creates a stream, or a fork of one.

use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, Extension, Path, State as Extract};
use axum::http::header::{CONTENT_TYPE, HOST, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dacapo_log::{Offset, Topic};

use super::fork::{self, Origin};
use super::lifetime::Lifetime;
use super::service::{Service, blocking, is_over};
use super::state::{Change, State};
use super::stream::{Present, Slot, Stream};
use super::{content, headers, place};
use crate::connections::Peer;
use crate::problem::Problem;

/// What a proxy that speaks TLS says of its client's request.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What is asked for; `None` where the request says nothing.
struct Asked {
    content_type: Option<String>,
    lifetime: Option<Lifetime>,
    closes: bool,
    origin: Option<Origin>,
    body: Bytes,
}

/// The stream that there is now.
struct Created {
    is_new: bool,
    content_type: String,
    is_closed: bool,
    tail: Offset,
    end: Offset,
}

pub(crate) async fn put(
    Extract(service): Extract<Arc<Service>>,
    Path(name): Path<String>,
    uri: Uri,
    peer: Option<Extension<ConnectInfo<Peer>>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let asked = Asked {
        content_type: headers::content_type(&headers)?.map(str::to_owned),
        lifetime: Lifetime::asked(&headers)?,
        closes: headers::closes(&headers),
        origin: Origin::asked(&headers)?,
        body: received(body)?,
    };
    let creating = Arc::clone(&service);
    let created = blocking(move || creating.create(&name, &asked)).await?;
    service.settled(created.end).await?;

    let mut answer = HeaderMap::new();
    let content_type = HeaderValue::try_from(created.content_type);
    answer.insert(
        CONTENT_TYPE,
        content_type.map_err(|error| Problem::internal(&error))?,
    );
    answer.insert(headers::NEXT_OFFSET, place::header_of(created.tail));
    if created.is_closed {
        answer.insert(headers::CLOSED, HeaderValue::from_static("true"));
    }
    if !created.is_new {
        return Ok((StatusCode::OK, answer).into_response());
    }
    let is_tls = peer.is_some_and(|Extension(ConnectInfo(peer))| peer.is_tls());
    answer.insert(LOCATION, location(&uri, is_tls, &headers)?);
    Ok((StatusCode::CREATED, answer).into_response())
}

/// Where the new stream is, as its creator calls this server.
fn location(uri: &Uri, is_tls: bool, headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let host = headers::text(headers, &HOST)?.unwrap_or_default();
    let own = if is_tls { "https" } else { "http" };
    let scheme = headers::text(headers, &FORWARDED_PROTO)?.unwrap_or(own);
    let absolute = Uri::builder()
        .scheme(scheme)
        .authority(host)
        .path_and_query(uri.path());
    // Who names no host gets the path.
    let location = absolute
        .build()
        .map_or(uri.path().to_owned(), |uri| uri.to_string());
    HeaderValue::try_from(location).map_err(|error| Problem::internal(&error))
}

/// The body of a request, unless it is too large.
pub(crate) fn received(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))
}

impl Service {
    fn create(&self, name: &str, asked: &Asked) -> Result<Created, Problem> {
        let stream = self.stream(name)?;
        self.refresh(&stream)?;
        match &asked.origin {
            Some(origin) => self.create_fork(&stream, origin, asked),
            None => self.create_root(&stream, asked),
        }
    }

    fn create_root(&self, stream: &Stream, asked: &Asked) -> Result<Created, Problem> {
        let mut slot = stream.load(&self.log)?;
        if let Slot::Present(present) = &*slot {
            return existing(present, asked);
        }
        let content_type = asked
            .content_type
            .as_deref()
            .unwrap_or(headers::TYPE_DEFAULT);
        let lifetime = asked.lifetime.unwrap_or_default();
        let state = State::new(content_type.to_owned(), lifetime);
        self.store(stream, &mut slot, state, asked, |_| Ok(Vec::new()))
    }

    fn create_fork(
        &self,
        stream: &Stream,
        origin: &Origin,
        asked: &Asked,
    ) -> Result<Created, Problem> {
        let source = self.stream(&origin.name)?;
        self.refresh(&source)?;
        let _forking = self.lock_forking();
        let mut slot = stream.load(&self.log)?;
        if let Slot::Present(present) = &*slot {
            return existing(present, asked);
        }
        if source.data == stream.data {
            return Err(super::service::not_found());
        }
        let mut source_slot = source.load(&self.log)?;
        let is_over = is_over(&source_slot);
        let Slot::Present(parent) = &mut *source_slot else {
            return Err(super::service::not_found());
        };
        if is_over {
            return Err(super::service::not_found());
        }
        if parent.state.gone {
            return Err(Problem::conflict(
                "the source was deleted; fork one of its forks",
            ));
        }
        let content_type = &parent.state.content_type;
        let asked_type = asked.content_type.as_deref().unwrap_or(content_type);
        if !headers::is_same_type(asked_type, content_type) {
            return Err(Problem::conflict(format!(
                "the source is of type {content_type}, and so are its forks"
            )));
        }
        let lifetime = asked.lifetime.unwrap_or(parent.state.lifetime);
        let mut state = State::new(content_type.clone(), lifetime);
        state.fork = Some(fork::fork_of(&self.log, &source, parent, origin)?);
        parent.renew(&self.log, &source);
        let counted = parent.changed(parent.state.forks + 1, false);
        let change = Change::State(Box::new(counted.clone())).to_bytes();
        let created = self.store(stream, &mut slot, state, asked, |_| {
            Ok(vec![(source.control.clone(), change)])
        })?;
        if let Slot::Present(present) = &*slot {
            // It is the batch's second record.
            parent.stored(counted, present.created.next(), created.end);
        }
        Ok(created)
    }

    /// Creates a stream in one batch: its state, what `beside` says of other streams, its first data.
    fn store(
        &self,
        stream: &Stream,
        slot: &mut Slot,
        mut state: State,
        asked: &Asked,
        beside: impl FnOnce(&State) -> Result<Vec<(Topic, Vec<u8>)>, Problem>,
    ) -> Result<Created, Problem> {
        state.closed = asked.closes;
        let body = &asked.body[..];
        let messages = match body.is_empty() {
            true => Vec::new(),
            false if headers::is_json(&state.content_type) => content::json_messages(body)?,
            false => vec![body],
        };
        let change = Change::State(Box::new(state.clone())).to_bytes();
        let beside = beside(&state)?;
        let changes = std::iter::once((&stream.control, &change[..]));
        let beside = beside.iter().map(|(topic, bytes)| (topic, &bytes[..]));
        let data = messages.iter().map(|message| (&stream.data, *message));
        let has_data = !messages.is_empty();
        let offsets = self
            .log
            .append_batch_to(changes.chain(beside).chain(data))?;
        let mut present = Present::new(state, offsets.start, offsets.end);
        if !has_data {
            present.tail = offsets.start.next();
        }
        let created = Created {
            is_new: true,
            content_type: present.state.content_type.clone(),
            is_closed: asked.closes,
            tail: present.tail,
            end: present.end,
        };
        *slot = Slot::Present(Box::new(present));
        self.config.metrics.appended(body.len());
        Ok(created)
    }
}

/// The stream that there is already, if it is as asked.
fn existing(present: &Present, asked: &Asked) -> Result<Created, Problem> {
    let state = &present.state;
    let differs = |what: &str| {
        let detail = format!("there is such a stream with another {what}; delete it first");
        Err(Problem::conflict(detail))
    };
    if state.gone {
        return Err(Problem::conflict(
            "a stream of this name was deleted and is kept for its forks; delete those first",
        ));
    }
    let is_fork = asked.origin.is_some();
    // A fork has from its source what the request does not say.
    let content_type = match &asked.content_type {
        Some(content_type) => content_type,
        None if is_fork => &state.content_type,
        None => headers::TYPE_DEFAULT,
    };
    if !headers::is_same_type(content_type, &state.content_type) {
        return differs("content type");
    }
    let lifetime = asked.lifetime.unwrap_or(match is_fork {
        true => state.lifetime,
        false => Lifetime::Endless,
    });
    if lifetime != state.lifetime {
        return differs("lifetime");
    }
    if asked.closes != state.closed {
        return differs("end: one is closed");
    }
    let is_same_origin = match (&asked.origin, &state.fork) {
        (None, None) => true,
        (Some(origin), Some(fork)) => origin.is_of(fork),
        _ => false,
    };
    if !is_same_origin {
        return differs("origin");
    }
    Ok(Created {
        is_new: false,
        content_type: state.content_type.clone(),
        is_closed: state.closed,
        tail: present.tail,
        end: present.end,
    })
}
