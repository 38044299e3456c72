//! A log that is used by several threads, crashes and is opened again, with a model beside it: the
//! simulation of `dacapo-log`, with the input's bytes for its decisions.
//!
//! ```text
//! RUSTFLAGS="--cfg simulation" cargo fuzz run --sanitizer none log_ops
//! ```

#![cfg_attr(simulation, no_main)]

#[cfg(simulation)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| dacapo_log::simulation::live_script(input));

#[cfg(not(simulation))]
fn main() {
    eprintln!("this target takes RUSTFLAGS=\"--cfg simulation\", which replaces the disk");
    std::process::exit(1);
}
