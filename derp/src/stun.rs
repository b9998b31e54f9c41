//! STUN binding (RFC 5389): responses to Tailscale clients, and requests of our own. Does no I/O.
//!
//! Like the reference it responds only to requests with the client's SOFTWARE attribute and a valid
//! FINGERPRINT. This limits amplification: a response to IPv4 is smaller than the request, to IPv6
//! four bytes larger.

use std::net::{IpAddr, SocketAddr};

use bytes::BufMut;

/// Longest response in bytes, for the `out` of [`respond`].
pub const RESPONSE_MAX_LEN: usize = 44;

/// Longest request that is parsed, in bytes; that of the known clients has 40.
pub const REQUEST_MAX_LEN: usize = 256;

/// RFC 5389 section 6.
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// RFC 5389 section 6: class request, method binding.
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
/// RFC 5389 section 6: class success, method binding.
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
/// RFC 5389 section 15.10.
const SOFTWARE: u16 = 0x8022;
/// RFC 5389 section 15.5.
const FINGERPRINT: u16 = 0x8028;
/// RFC 5389 section 15.1.
const MAPPED_ADDRESS: u16 = 0x0001;
/// RFC 5389 section 15.2.
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// RFC 5389 section 15.5: the value that the CRC is XORed with.
const FINGERPRINT_XOR: u32 = 0x5354_554e;
/// The SOFTWARE attribute of every client. Source: `stun.software`.
const CLIENT_SOFTWARE: &[u8] = b"tailnode";
/// Length of a fingerprint attribute with its header in bytes.
const FINGERPRINT_LEN: usize = 8;

/// Writes the response to `packet` from the address `from` into `out`. Returns its length: 32 bytes
/// for IPv4, including IPv4-mapped addresses, and 44 for IPv6. None if the request is invalid or `out`
/// is too short.
pub fn respond(packet: &[u8], from: SocketAddr, out: &mut [u8]) -> Option<usize> {
    let transaction = parse_request(packet)?;
    let ip = from.ip().to_canonical();
    let attribute_len: u16 = if ip.is_ipv4() { 8 } else { 20 };
    let length = usize::from(attribute_len).checked_add(24)?;
    let mut out = out.get_mut(..length)?;
    out.put_slice(&BINDING_SUCCESS);
    out.put_u16(attribute_len.checked_add(4)?);
    out.put_slice(&MAGIC_COOKIE);
    out.put_slice(transaction);
    out.put_u16(XOR_MAPPED_ADDRESS);
    out.put_u16(attribute_len);
    let [first, second, ..] = MAGIC_COOKIE;
    let port = from.port() ^ u16::from_be_bytes([first, second]);
    let mask = MAGIC_COOKIE.iter().chain(transaction);
    match ip {
        IpAddr::V4(ip) => {
            out.put_u16(0x0001);
            out.put_u16(port);
            ip.octets()
                .iter()
                .zip(mask)
                .for_each(|(byte, mask)| out.put_u8(byte ^ mask));
        }
        IpAddr::V6(ip) => {
            out.put_u16(0x0002);
            out.put_u16(port);
            ip.octets()
                .iter()
                .zip(mask)
                .for_each(|(byte, mask)| out.put_u8(byte ^ mask));
        }
    }
    Some(length)
}

/// Length of [`request`] in bytes.
pub const REQUEST_LEN: usize = 40;

/// Binding request of a client; `transaction` should be random. All STUN servers respond to it.
/// Source: `stun.Request`.
pub fn request(transaction: &[u8; 12]) -> [u8; REQUEST_LEN] {
    let mut out = [0; REQUEST_LEN];
    let (covered, mut fingerprint) = out.split_at_mut(REQUEST_LEN - FINGERPRINT_LEN);
    let mut rest = &mut *covered;
    rest.put_slice(&BINDING_REQUEST);
    rest.put_u16(20);
    rest.put_slice(&MAGIC_COOKIE);
    rest.put_slice(transaction);
    rest.put_u16(SOFTWARE);
    rest.put_u16(8);
    rest.put_slice(CLIENT_SOFTWARE);
    let sum = crc32(covered) ^ FINGERPRINT_XOR;
    fingerprint.put_u16(FINGERPRINT);
    fingerprint.put_u16(4);
    fingerprint.put_u32(sum);
    out
}

/// The source address of the request, from the response to the request with this transaction ID.
/// Other servers may send it without XOR (RFC 5389 section 15.1).
pub fn mapped_address(packet: &[u8], transaction: &[u8; 12]) -> Option<SocketAddr> {
    let rest = packet.strip_prefix(&BINDING_SUCCESS)?;
    let (_length, rest) = rest.split_first_chunk::<2>()?;
    let rest = rest.strip_prefix(&MAGIC_COOKIE)?;
    let mut attributes = rest.strip_prefix(transaction)?;
    let mut plain = None;
    while let Some((&[a, b, c, d], rest)) = attributes.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([c, d]));
        let value = rest.get(..length)?;
        let padded = length.checked_next_multiple_of(4)?;
        attributes = rest.get(padded..).unwrap_or_default();
        match u16::from_be_bytes([a, b]) {
            XOR_MAPPED_ADDRESS => {
                let mut mask = [0; 16];
                let (cookie, own) = mask.split_at_mut(MAGIC_COOKIE.len());
                cookie.copy_from_slice(&MAGIC_COOKIE);
                own.copy_from_slice(transaction);
                return address(value, mask);
            }
            MAPPED_ADDRESS => plain = address(value, [0; 16]),
            _ => {}
        }
    }
    plain
}

/// Decodes the value of an address attribute, which is XORed with the mask.
fn address(value: &[u8], mask: [u8; 16]) -> Option<SocketAddr> {
    let (&[_, family, high, low], ip) = value.split_first_chunk::<4>()?;
    let [first, second, ..] = mask;
    let port = u16::from_be_bytes([high ^ first, low ^ second]);
    let ip: IpAddr = match family {
        1 => {
            let mut octets = <[u8; 4]>::try_from(ip).ok()?;
            octets
                .iter_mut()
                .zip(mask)
                .for_each(|(octet, mask)| *octet ^= mask);
            octets.into()
        }
        2 => {
            let mut octets = <[u8; 16]>::try_from(ip).ok()?;
            octets
                .iter_mut()
                .zip(mask)
                .for_each(|(octet, mask)| *octet ^= mask);
            octets.into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The transaction ID of a valid request. Source: `stun.ParseBindingRequest`.
fn parse_request(packet: &[u8]) -> Option<&[u8; 12]> {
    if packet.len() > REQUEST_MAX_LEN {
        return None;
    }
    let rest = packet.strip_prefix(&BINDING_REQUEST)?;
    // The reference walks to the end of the packet and does not look at the length field.
    let (_length, rest) = rest.split_first_chunk::<2>()?;
    let rest = rest.strip_prefix(&MAGIC_COOKIE)?;
    let (transaction, mut attributes) = rest.split_first_chunk::<12>()?;
    let mut software = false;
    let mut fingerprint = None;
    while !attributes.is_empty() {
        let (&[a, b, c, d], rest) = attributes.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([c, d]));
        let value = rest.get(..length)?;
        attributes = rest.get(length.checked_next_multiple_of(4)?..)?;
        let kind = u16::from_be_bytes([a, b]);
        software |= kind == SOFTWARE && value == CLIENT_SOFTWARE;
        // The fingerprint must be the last attribute.
        fingerprint = if kind == FINGERPRINT {
            value.first_chunk::<4>().filter(|_| length == 4)
        } else {
            None
        };
    }
    let covered = packet.get(..packet.len().checked_sub(FINGERPRINT_LEN)?)?;
    let expected = crc32(covered) ^ FINGERPRINT_XOR;
    (software && fingerprint.copied().map(u32::from_be_bytes) == Some(expected))
        .then_some(transaction)
}

/// CRC-32 of IEEE 802.3, bit by bit: the input is short, and a table would use a kilobyte of cache.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::hex;

    /// `stun.Request` of tailscale.com v1.102.5 for transaction 00..0b.
    fn request() -> Vec<u8> {
        hex("000100142112a442000102030405060708090a0b802200087461696c6e6f6465802800048aabad90")
    }

    #[test]
    fn request_is_that_of_clients_and_its_response_is_decoded() {
        let transaction: [u8; 12] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        assert_eq!(super::request(&transaction).to_vec(), request());
        for from in ["203.0.113.5:40000", "[2001:db8::1]:7"] {
            let answer = answer(&request(), from).unwrap();
            assert_eq!(mapped_address(&answer, &transaction), from.parse().ok());
            assert_eq!(mapped_address(&answer, &[9; 12]), None);
            for end in 0..answer.len() {
                assert_eq!(mapped_address(&answer[..end], &transaction), None, "{end}");
            }
        }
        let old = "010100 0c2112a442000102030405060708090a0b 0001 0008 0001 9c40 cb007105";
        let old = hex(&old.replace(' ', ""));
        let expected = "203.0.113.5:40000".parse().ok();
        assert_eq!(mapped_address(&old, &transaction), expected);
    }

    proptest! {
        #[test]
        fn any_response_is_decoded_without_panic(tail in proptest::collection::vec(any::<u8>(), 0..80)) {
            let transaction = [7; 12];
            let head = [&BINDING_SUCCESS[..], &[0, 0], &MAGIC_COOKIE, &transaction].concat();
            let _ = mapped_address(&[head, tail].concat(), &transaction);
        }
    }

    fn answer(packet: &[u8], from: &str) -> Option<Vec<u8>> {
        let mut out = [0; RESPONSE_MAX_LEN];
        respond(packet, from.parse().unwrap(), &mut out).map(|length| out[..length].to_vec())
    }

    #[test]
    fn checksum_has_the_published_check_value() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    /// `stun.Response` of tailscale.com v1.102.5.
    #[test]
    fn responses_are_those_of_the_reference() {
        let v4 = hex("0101000c2112a442000102030405060708090a0b002000080001373c2010a746");
        assert_eq!(answer(&request(), "1.2.3.4:5678").unwrap(), v4);
        assert_eq!(answer(&request(), "[::ffff:1.2.3.4]:5678").unwrap(), v4);
        let v6 = hex(concat!(
            "010100182112a442000102030405060708090a0b00200014",
            "000221130113a9fa000102030405060708090a0a",
        ));
        assert_eq!(answer(&request(), "[2001:db8::1]:1").unwrap(), v6);
    }

    #[test]
    fn truncated_requests_get_no_response() {
        let packet = request();
        for end in 0..packet.len() {
            assert_eq!(
                answer(&packet[..end], "1.2.3.4:5"),
                None,
                "first {end} bytes"
            );
        }
    }

    #[test]
    fn altered_requests_get_no_response() {
        for bit in 0..request().len() * 8 {
            let mut packet = request();
            packet[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(answer(&packet, "1.2.3.4:5"), None, "bit {bit}");
        }
    }

    #[test]
    fn fingerprint_must_be_last_and_software_present() {
        let mut packet = request();
        packet.extend_from_slice(&[0x80, 0x22, 0, 0]);
        assert_eq!(answer(&packet, "1.2.3.4:5"), None);
        let mut packet = request()[..20].to_vec();
        let fingerprint = crc32(&packet) ^ FINGERPRINT_XOR;
        packet.extend_from_slice(&[0x80, 0x28, 0, 4]);
        packet.extend_from_slice(&fingerprint.to_be_bytes());
        assert_eq!(answer(&packet, "1.2.3.4:5"), None);
    }

    #[test]
    fn short_output_is_refused() {
        assert_eq!(
            respond(&request(), "1.2.3.4:5".parse().unwrap(), &mut [0; 31]),
            None
        );
        assert_eq!(
            respond(&request(), "[::1]:5".parse().unwrap(), &mut [0; 43]),
            None
        );
    }

    proptest! {
        #[test]
        fn junk_never_panics_and_gets_no_response(packet in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert_eq!(answer(&packet, "1.2.3.4:5"), None);
        }

        #[test]
        fn attributes_of_any_length_are_parsed_without_panic(tail in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut packet = request()[..20].to_vec();
            packet.extend_from_slice(&tail);
            let _ = answer(&packet, "1.2.3.4:5");
        }
    }
}
