//! Ratios of medians, read back from what criterion measured in this run.

use std::path::PathBuf;

/// Prints how many times slower than its limit, or its rival, each bench was. `pairs` are criterion
/// ids: what is asked about, and what it is held against. A pair that this run did not measure is left out.
pub fn print(question: &str, pairs: &[(String, String)]) {
    println!("\n{question}");
    for (bench, limit) in pairs {
        if let (Some(ours), Some(least)) = (median_nanos(bench), median_nanos(limit)) {
            println!("  {bench:<28} {:>7.2} x {limit}", ours / least);
        }
    }
}

/// The median of a bench, from criterion's own file.
fn median_nanos(id: &str) -> Option<f64> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")),
        PathBuf::from,
    );
    let base = ["new", "base"].map(|dir| {
        target
            .join("criterion")
            .join(id)
            .join(dir)
            .join("estimates.json")
    });
    let bytes = base.iter().find_map(|path| std::fs::read(path).ok())?;
    let estimates: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    estimates["median"]["point_estimate"].as_f64()
}
