//! Any datagram from any address: no answer, or one that cannot amplify.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use hearth_derp::stun::{REQUEST_MAX_LEN, RESPONSE_MAX_LEN, respond};
use libfuzzer_sys::fuzz_target;

/// RFC 5389 section 15.5, as slow and plain as possible.
fn fingerprint(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
        }
    }
    !crc ^ 0x5354_554e
}

fuzz_target!(|input: &[u8]| {
    let Some((head, packet)) = input.split_first_chunk::<19>() else {
        return;
    };
    let [mode, p0, p1, address @ ..] = *head;
    let ip = if mode & 1 == 0 {
        IpAddr::from([address[0], address[1], address[2], address[3]])
    } else {
        IpAddr::from(address)
    };
    let from = SocketAddr::new(ip, u16::from_be_bytes([p0, p1]));
    let mut packet = packet.to_vec();
    if mode & 2 == 2 && packet.len() >= 8 {
        // No fuzzer finds a checksum.
        let covered = packet.len() - 8;
        let sum = fingerprint(&packet[..covered]);
        packet[covered..covered + 4].copy_from_slice(&[0x80, 0x28, 0, 4]);
        packet[covered + 4..].copy_from_slice(&sum.to_be_bytes());
    }
    let mut out = [0; RESPONSE_MAX_LEN];
    if let Some(length) = respond(&packet, from, &mut out) {
        assert!(packet.len() <= REQUEST_MAX_LEN);
        assert!(length <= packet.len() + 4);
        assert_eq!(out[8..20], packet[8..20], "the transaction");
        let short = respond(&packet, from, &mut out[..length - 1]);
        assert_eq!(short, None);
    }
});
