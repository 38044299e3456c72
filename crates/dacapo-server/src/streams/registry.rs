//! Which streams are in memory: those in use, and of the others no more than a bound.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dacapo_log::Topic;

use super::stream::Stream;

/// A stream that nobody has asked for in so long is dropped from memory, at the next look.
const IDLE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Registry {
    streams_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    streams: HashMap<Topic, Arc<Stream>>,
    looked: Instant,
}

impl Registry {
    /// Keeps `streams_max` that nobody uses.
    pub(crate) fn new(streams_max: usize) -> Self {
        let inner = Inner {
            streams: HashMap::new(),
            looked: Instant::now(),
        };
        Self {
            streams_max,
            inner: Mutex::new(inner),
        }
    }

    /// The one of this name. As long as somebody holds it, there is no other.
    pub(crate) fn get(&self, data: &Topic, control: impl FnOnce() -> Topic) -> Arc<Stream> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = inner.streams.get(data) {
            stream.is_used.store(true, Relaxed);
            return Arc::clone(stream);
        }
        if inner.streams.len() >= self.streams_max {
            inner.drop_idle();
            if inner.streams.len() >= self.streams_max {
                inner.streams.retain(|_, stream| is_held(stream));
            }
        } else if inner.looked.elapsed() > IDLE {
            inner.drop_idle();
        }
        let stream = Arc::new(Stream::new(data.clone(), control()));
        inner.streams.insert(data.clone(), Arc::clone(&stream));
        stream
    }
}

impl Inner {
    fn drop_idle(&mut self) {
        self.looked = Instant::now();
        self.streams
            .retain(|_, stream| is_held(stream) || stream.is_used.swap(false, Relaxed));
    }
}

/// Whether anybody else has it. Nobody can get it meanwhile: the registry is locked.
fn is_held(stream: &Arc<Stream>) -> bool {
    Arc::strong_count(stream) > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(registry: &Registry, name: &str) -> Arc<Stream> {
        let topic = Topic::new(name).unwrap();
        registry.get(&topic, || Topic::new("control").unwrap())
    }

    fn names(registry: &Registry) -> Vec<String> {
        let inner = registry.inner.lock().unwrap();
        let mut names: Vec<String> = inner.streams.keys().map(Topic::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn a_stream_that_somebody_holds_is_the_only_one_of_its_name() {
        let registry = Registry::new(2);
        let held = get(&registry, "held");
        for name in ["a", "b", "c"] {
            get(&registry, name);
        }
        assert!(Arc::ptr_eq(&held, &get(&registry, "held")));
    }

    #[test]
    fn streams_that_nobody_uses_are_bounded() {
        let registry = Registry::new(2);
        for name in ["a", "b", "c"] {
            get(&registry, name);
        }
        assert!(names(&registry).len() <= 2);
        assert!(names(&registry).contains(&"c".to_owned()));
    }

    #[test]
    fn a_stream_that_was_asked_for_since_the_last_look_stays() {
        let registry = Registry::new(9);
        get(&registry, "a");
        registry.inner.lock().unwrap().drop_idle();
        get(&registry, "b");
        registry.inner.lock().unwrap().drop_idle();
        assert_eq!(names(&registry), ["b"]);
    }
}
