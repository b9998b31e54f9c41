//! What a proxy says about its client: PROXY protocol headers, X-Forwarded-For and Forwarded. A header is found only once it
//! is whole, and nobody but a trusted proxy can name another client.
#![no_main]

use std::net::SocketAddr;

use hearth::net::proxies::Proxies;
use hearth::net::proxy_protocol::{Start, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(Start::Header { length, .. }) = parse(input) {
        assert!(length <= input.len());
        for end in 0..length {
            assert_eq!(parse(&input[..end]), Ok(Start::Incomplete), "cut at {end}");
        }
    }
    let proxies = Proxies::new(vec!["192.0.2.0/24".parse().unwrap()]);
    let lines = |_: &str| input.to_vec();
    let stranger: SocketAddr = "198.51.100.1:4000".parse().unwrap();
    assert_eq!(proxies.client(stranger, false, &lines).source, stranger);
    let proxy: SocketAddr = "192.0.2.7:4000".parse().unwrap();
    for name in ["x-forwarded-for", "forwarded"] {
        let lines = |asked: &str| match asked == name {
            true => input.to_vec(),
            false => Vec::new(),
        };
        let _ = proxies.client(proxy, true, &lines);
    }
});
