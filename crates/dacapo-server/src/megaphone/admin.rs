//! What only an admin may do: list channels, and delete them.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

use super::body;
use super::failure::{Code, Failure};
use super::service::Service;
use super::stored::Ending;
use crate::auth::{Authorizer, Denied, Right};

/// How many channels are listed where the request does not say.
const LIMIT: usize = 50;

/// How many are listed at most.
const LIMIT_MAX: usize = 10_000;

#[derive(Serialize)]
struct Listed {
    channels: Vec<Info>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    address: String,
    agent_id: String,
}

pub(crate) async fn list(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Failure> {
    service.check_admin(&headers)?;
    let Query(query) = query.map_err(|error| Failure::bad_request(error.body_text()))?;
    let (mut skip, mut limit, mut agents) = (0, LIMIT, HashSet::new());
    for (name, value) in &query {
        match name.as_str() {
            "skip" => skip = number(name, value)?,
            "limit" => limit = number(name, value)?,
            "agents" => drop(agents.insert(value.as_str())),
            _ => {}
        }
    }
    let all = match agents.is_empty() {
        true => service.list(skip, limit.min(LIMIT_MAX)),
        false => {
            let mut found = service.list(0, usize::MAX);
            found.retain(|channel| agents.contains(channel.agent().as_str()));
            found
                .into_iter()
                .skip(skip)
                .take(limit.min(LIMIT_MAX))
                .collect()
        }
    };
    let channels = all.iter().map(|channel| Info {
        address: channel.consumer_address(&service.keys),
        agent_id: channel.agent(),
    });
    let listed = Listed {
        channels: channels.collect(),
    };
    Ok(body::answer(StatusCode::OK, &listed))
}

fn number(name: &str, value: &str) -> Result<usize, Failure> {
    value
        .parse()
        .map_err(|_| Failure::bad_request(format!("{name} is a number, such as 50")))
}

/// By any of its addresses.
pub(crate) async fn delete(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    service.check_admin(&headers)?;
    let Path(address) = path.map_err(|error| Failure::bad_request(error.body_text()))?;
    let (_, channel) = service.find(&address)?;
    let Some(offset) = service.end(&channel, Ending::Deleted)? else {
        return Err(Failure::no_such_channel());
    };
    service.log.durable(offset).await?;
    Ok(body::answer(StatusCode::OK, &json!({"status": "OK"})))
}

impl Service {
    fn check_admin(&self, headers: &HeaderMap) -> Result<(), Failure> {
        match (&self.admin, &self.config.auth) {
            // As if there were nothing here.
            (None, None) => Err(Failure::new(Code::NotFound, "this server has no admins")),
            (Some(admin), Some(_)) if check(admin, headers, Right::Admin).is_ok() => Ok(()),
            (_, Some(auth)) | (Some(auth), None) => Ok(check(auth, headers, Right::Admin)?),
        }
    }

    /// Whether somebody has this right in all topics, where that is asked for.
    pub(crate) fn check_right(&self, headers: &HeaderMap, right: Right) -> Result<(), Failure> {
        match &self.config.auth {
            Some(auth) => Ok(check(auth, headers, right)?),
            None => Ok(()),
        }
    }
}

fn check(auth: &Authorizer, headers: &HeaderMap, right: Right) -> Result<(), Denied> {
    auth.identify(headers, None)?.may(right, "")
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        let code = match denied {
            Denied::Forbidden => Code::Forbidden,
            _ => Code::Unauthorized,
        };
        Self::new(code, denied.to_string())
    }
}
