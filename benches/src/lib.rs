//! What the benches share: the physical limits to compare with, the ratios at the end, and memory.
//!
//! These machines are shared and noisy, so a figure counts only beside its limit from the same
//! run.

pub mod event;
pub mod limit;
pub mod memory;
pub mod operations;
pub mod quantiles;
pub mod ratio;
pub mod run;
pub mod shared;
pub mod synced;

/// Payload sizes that every bench asks about, with their names.
pub const PAYLOADS: [(&str, usize); 2] = [("100B", 100), ("1KiB", 1024)];

/// A payload of `bytes` bytes that does not compress to nothing.
#[must_use]
pub fn payload(bytes: usize) -> Vec<u8> {
    (0_u8..=250).cycle().take(bytes).collect()
}
