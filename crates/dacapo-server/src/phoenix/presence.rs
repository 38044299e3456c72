//! Who is there, as `Presence` of phoenix.js has it: keys, and for each the metas of its channels.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Who is there in one topic. It lives in memory: after a restart all come back, and are tracked anew.
#[derive(Debug, Default)]
pub(super) struct Present {
    /// Of each key the metas, in the order of their coming.
    keys: BTreeMap<String, Vec<Map<String, Value>>>,
}

impl Present {
    /// The state, as `presence_state` has it.
    pub(super) fn state(&self) -> Value {
        let key = |(key, metas): (&String, &Vec<_>)| (key.clone(), json!({"metas": metas}));
        Value::Object(self.keys.iter().map(key).collect())
    }

    /// Adds a meta, and removes the one that it replaces; the diff.
    pub(super) fn add(
        &mut self,
        key: &str,
        reference: &str,
        meta: Map<String, Value>,
        replaces: Option<&str>,
    ) -> Value {
        let left = replaces.and_then(|reference| self.take(key, reference));
        let mut meta = meta;
        meta.insert("phx_ref".to_owned(), json!(reference));
        if let Some(replaced) = replaces {
            meta.insert("phx_ref_prev".to_owned(), json!(replaced));
        }
        self.keys
            .entry(key.to_owned())
            .or_default()
            .push(meta.clone());
        diff(key, Some(meta), left)
    }

    /// Removes a meta; the diff, if it was there.
    pub(super) fn remove(&mut self, key: &str, reference: &str) -> Option<Value> {
        let left = self.take(key, reference)?;
        Some(diff(key, None, Some(left)))
    }

    fn take(&mut self, key: &str, reference: &str) -> Option<Map<String, Value>> {
        let metas = self.keys.get_mut(key)?;
        let place = metas.iter().position(|meta| meta["phx_ref"] == reference)?;
        let meta = metas.remove(place);
        if metas.is_empty() {
            self.keys.remove(key);
        }
        Some(meta)
    }
}

fn diff(key: &str, joined: Option<Map<String, Value>>, left: Option<Map<String, Value>>) -> Value {
    let side = |meta: Option<Map<String, Value>>| match meta {
        Some(meta) => json!({key: {"metas": [meta]}}),
        None => json!({}),
    };
    json!({"joins": side(joined), "leaves": side(left)})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(device: &str) -> Map<String, Value> {
        Map::from_iter([("device".to_owned(), json!(device))])
    }

    #[test]
    fn a_user_is_there_until_the_last_tab_has_gone() {
        let mut present = Present::default();
        let joined = present.add("u1", "a", meta("phone"), None);
        let phone = json!({"device": "phone", "phx_ref": "a"});
        assert_eq!(
            joined,
            json!({"joins": {"u1": {"metas": [phone]}}, "leaves": {}})
        );
        present.add("u1", "b", meta("desk"), None);
        let desk = json!({"device": "desk", "phx_ref": "b"});
        assert_eq!(present.state(), json!({"u1": {"metas": [phone, desk]}}));
        let left = present.remove("u1", "a").unwrap();
        assert_eq!(
            left,
            json!({"joins": {}, "leaves": {"u1": {"metas": [phone]}}})
        );
        assert_eq!(present.state(), json!({"u1": {"metas": [desk]}}));
        assert!(present.remove("u1", "a").is_none());
        present.remove("u1", "b").unwrap();
        assert_eq!(present.state(), json!({}));
    }

    #[test]
    fn an_update_leaves_and_joins_in_one_diff() {
        let mut present = Present::default();
        present.add("u1", "a", meta("phone"), None);
        let diff = present.add("u1", "b", meta("desk"), Some("a"));
        let new = json!({"device": "desk", "phx_ref": "b", "phx_ref_prev": "a"});
        assert_eq!(diff["joins"]["u1"]["metas"], json!([new]));
        assert_eq!(diff["leaves"]["u1"]["metas"][0]["phx_ref"], "a");
        assert_eq!(present.state()["u1"]["metas"], json!([new]));
    }
}
