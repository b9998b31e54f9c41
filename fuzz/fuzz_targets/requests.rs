//! Any JSON as a request of a client: refused, or within the limits that the decoder was given.
#![no_main]

use hearth_core::tailcfg::map::MapRequest;
use hearth_core::tailcfg::register::RegisterRequest;
use libfuzzer_sys::fuzz_target;

const ENDPOINTS_MAX: usize = 8;

fuzz_target!(|input: &[u8]| {
    if let Ok(request) = MapRequest::decode(input, ENDPOINTS_MAX) {
        assert!(request.endpoints.len() <= ENDPOINTS_MAX);
    }
    let _ = RegisterRequest::decode(input);
});
