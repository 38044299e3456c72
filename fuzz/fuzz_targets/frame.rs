//! Any bytes as each thing that a log has on disk, with the checksum that they have and with the
//! right one: never a panic, and what decodes comes back from being encoded.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| dacapo_log::fuzzing::check_formats(input));
