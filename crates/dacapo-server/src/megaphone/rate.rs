//! A limit on how often something happens.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// So many in a second, and as many at once.
pub(crate) struct Rate {
    per_second: f64,
    bucket: Mutex<Bucket>,
}

struct Bucket {
    left: f64,
    filled: Instant,
}

impl Rate {
    pub(crate) fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self {
            per_second,
            bucket: Mutex::new(Bucket {
                left: per_second,
                filled: Instant::now(),
            }),
        }
    }

    /// Whether it may happen now; counts it then.
    pub(crate) fn allows(&self) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = bucket.filled.elapsed().as_secs_f64();
        bucket.left = (bucket.left + seconds * self.per_second).min(self.per_second);
        bucket.filled = Instant::now();
        let is_allowed = bucket.left >= 1.0;
        if is_allowed {
            bucket.left -= 1.0;
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_are_allowed_at_once_and_again_with_time() {
        let rate = Rate::new(2);
        assert_eq!([(); 3].map(|()| rate.allows()), [true, true, false]);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!([(); 2].map(|()| rate.allows()), [true, false]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!([(); 3].map(|()| rate.allows()), [true, true, false]);
    }
}
