//! Events and filters as engram has them: the types of one user of the realtime face.

use dacapo_server::realtime::{Filter, RealtimeEvent, RealtimeManager};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) type Manager = RealtimeManager<MemoryEvent, SubscriptionFilter>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EventType {
    MemoryCreated,
    MemoryUpdated,
    MemoryDeleted,
    CrossrefCreated,
    CrossrefDeleted,
    SyncStarted,
    SyncCompleted,
    SyncFailed,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MemoryEvent {
    pub(crate) seq_id: u64,
    #[serde(rename = "type")]
    pub(crate) event_type: EventType,
    pub(crate) timestamp: String,
    pub(crate) memory_id: Option<i64>,
    pub(crate) preview: Option<String>,
    pub(crate) changes: Option<Vec<String>>,
    pub(crate) data: Option<Value>,
}

impl MemoryEvent {
    pub(crate) fn new(event_type: EventType, memory_id: i64) -> Self {
        Self {
            seq_id: 0,
            event_type,
            timestamp: "2026-11-25T13:00:00Z".to_owned(),
            memory_id: Some(memory_id),
            preview: None,
            changes: None,
            data: None,
        }
    }
}

impl RealtimeEvent for MemoryEvent {
    fn event_type(&self) -> &str {
        match self.event_type {
            EventType::MemoryCreated => "memory_created",
            EventType::MemoryUpdated => "memory_updated",
            EventType::MemoryDeleted => "memory_deleted",
            EventType::CrossrefCreated => "crossref_created",
            EventType::CrossrefDeleted => "crossref_deleted",
            EventType::SyncStarted => "sync_started",
            EventType::SyncCompleted => "sync_completed",
            EventType::SyncFailed => "sync_failed",
        }
    }

    fn numbered(&mut self, seq: u64) {
        self.seq_id = seq;
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct SubscriptionFilter {
    pub(crate) memory_ids: Option<Vec<i64>>,
    pub(crate) tags: Option<Vec<String>>,
    pub(crate) event_types: Option<Vec<EventType>>,
}

impl Filter<MemoryEvent> for SubscriptionFilter {
    fn matches(&self, event: &MemoryEvent) -> bool {
        let is_wanted = |wanted: &Vec<i64>| event.memory_id.is_some_and(|id| wanted.contains(&id));
        let has_tag = |tags: &Vec<String>| {
            let own = event.data.as_ref().and_then(|data| data["tags"].as_array());
            let mut own = own.into_iter().flatten().filter_map(Value::as_str);
            own.any(|own| tags.iter().any(|tag| tag == own))
        };
        let is_of_type = |types: &Vec<EventType>| types.contains(&event.event_type);
        self.memory_ids.as_ref().is_none_or(is_wanted)
            && self.tags.as_ref().is_none_or(has_tag)
            && self.event_types.as_ref().is_none_or(is_of_type)
    }
}
