#![no_main]
use libfuzzer_sys::fuzz_target;
use migcast_fuzz::{set_up, watched};
use migcast_record::fuzzing;

fuzz_target!(init: set_up(), |data: &[u8]| watched(|| fuzzing::stream(data)));
