//! Any bytes as what a client of Phoenix channels sends, in both versions, in binary frames and as the
//! body of a long poll, and as a record of a durable topic: never a panic, and what is understood can be
//! answered and told to all.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| dacapo_server::phoenix::fuzzing::frames(input));
