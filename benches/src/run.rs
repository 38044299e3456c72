//! What every bench begins with: a criterion that is quick, and tables that are asked for.

use std::time::Duration;

use criterion::Criterion;

/// Criterion with short measurements and without plots, so that all benches together take minutes:
/// medians of `samples` samples over two seconds.
#[must_use]
pub fn criterion(samples: usize) -> Criterion {
    Criterion::default()
        .sample_size(samples)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .without_plots()
        .configure_from_args()
}

/// Whether this is `cargo bench`, and not `cargo test`, which only looks whether benches work.
#[must_use]
pub fn measures() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// Whether a table of this name is asked for: `cargo bench -- WORD` asks for those with the word
/// in their name.
#[must_use]
pub fn asks_for(name: &str) -> bool {
    let mut words = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'));
    let first = words.next();
    first.is_none_or(|word| name.contains(&word)) || words.any(|word| name.contains(&word))
}

/// `whole` when measuring, and a thousandth of it, but 1, when only looking whether it works.
#[must_use]
pub fn scaled(whole: u32) -> u32 {
    if measures() {
        whole
    } else {
        (whole / 1_000).max(1)
    }
}
