//! The Port Control Protocol (RFC 6887), as much of it as maps a port of IPv4.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::wan::mapping::{Port, Transport};
use crate::wan::portmap::{Granted, Refusal, seconds};

/// Length of a request in bytes: header (section 7.1) and MAP (section 11.1).
pub const REQUEST_LEN: usize = 60;

const VERSION: u8 = 2;
/// Source: section 19.3.
const MAP: u8 = 1;
/// The bit of a response. Source: section 7.2.
const ANSWER: u8 = 0x80;

/// Identifies the owner of a mapping. Source: section 11.2.
pub type Nonce = [u8; 12];

/// The IP protocol number.
fn protocol(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
    }
}

/// The request for a mapping to `own`; a `lifetime` of zero removes it.
pub fn map_request(port: Port, own: Ipv4Addr, nonce: Nonce, lifetime: Duration) -> Vec<u8> {
    let mut packet = Vec::with_capacity(REQUEST_LEN);
    packet.extend([VERSION, MAP, 0, 0]);
    packet.extend(seconds(lifetime).to_be_bytes());
    packet.extend(own.to_ipv6_mapped().octets());
    packet.extend(nonce);
    packet.extend([protocol(port.transport), 0, 0, 0]);
    packet.extend(port.number.to_be_bytes());
    packet.extend(port.number.to_be_bytes());
    // Any external address. Source: section 11.1.
    packet.extend(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets());
    packet
}

/// The mapping and the external address in a response; `None` if it responds to something else.
pub fn map_answer(
    packet: &[u8],
    port: Port,
    nonce: Nonce,
) -> Option<Result<(Granted, Option<Ipv4Addr>), Refusal>> {
    let (&[version, operation, _, result], rest) = packet.split_first_chunk::<4>()?;
    if version != VERSION {
        // A router with NAT-PMP only responds in that protocol. Source: section 9.
        return (operation & ANSWER != 0).then_some(Err(Refusal::Version));
    }
    if operation != MAP | ANSWER {
        return None;
    }
    let (lifetime, rest) = rest.split_first_chunk::<4>()?;
    let (_epoch, rest) = rest.split_first_chunk::<4>()?;
    let (_reserved, rest) = rest.split_first_chunk::<12>()?;
    let (whose, rest) = rest.split_first_chunk::<12>()?;
    let (&[transport, ..], rest) = rest.split_first_chunk::<4>()?;
    let (internal, rest) = rest.split_first_chunk::<2>()?;
    let (external, rest) = rest.split_first_chunk::<2>()?;
    let external_ip = rest.first_chunk::<16>()?;
    let is_ours = *whose == nonce
        && transport == protocol(port.transport)
        && u16::from_be_bytes(*internal) == port.number;
    if !is_ours {
        return None;
    }
    // Source of the numbers: section 7.4.
    let refusal = match result {
        0 => {
            let granted = Granted {
                external: u16::from_be_bytes(*external),
                lifetime: Duration::from_secs(u32::from_be_bytes(*lifetime).into()),
            };
            let external_ip = Ipv6Addr::from(*external_ip).to_ipv4_mapped();
            let external_ip = external_ip.filter(|ip| !ip.is_unspecified());
            return Some(Ok((granted, external_ip)));
        }
        1 | 4 | 9 => Refusal::Version,
        2 => Refusal::Forbidden,
        7 => Refusal::NoNetwork,
        8 | 10 | 11 => Refusal::Taken,
        other => Refusal::Other(other.into()),
    };
    Some(Err(refusal))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PORT: Port = Port {
        transport: Transport::Udp,
        number: 3478,
    };
    const NONCE: Nonce = *b"twelve bytes";

    /// The answer of a router to a request.
    fn answer(result: u8, external: u16) -> Vec<u8> {
        let own = Ipv4Addr::new(192, 168, 178, 20);
        let request = map_request(PORT, own, NONCE, Duration::from_secs(7200));
        let mut packet = vec![2, 0x81, 0, result, 0, 0, 0x0e, 0x10, 0, 0, 0, 1];
        packet.extend([0; 12]);
        packet.extend(&request[24..42]);
        packet.extend(external.to_be_bytes());
        packet.extend(Ipv4Addr::new(203, 0, 113, 5).to_ipv6_mapped().octets());
        packet
    }

    #[test]
    fn a_request_is_as_long_as_the_rfc_has_it_and_says_who_asks() {
        let own = Ipv4Addr::new(192, 168, 178, 20);
        let request = map_request(PORT, own, NONCE, Duration::from_secs(7200));
        assert_eq!(request.len(), REQUEST_LEN);
        assert_eq!(request[..8], [2, 1, 0, 0, 0, 0, 0x1c, 0x20]);
        assert_eq!(request[18..24], [0xff, 0xff, 192, 168, 178, 20]);
        assert_eq!(request[24..36], NONCE);
        assert_eq!(request[36..44], [17, 0, 0, 0, 0x0d, 0x96, 0x0d, 0x96]);
    }

    #[test]
    fn an_answer_gives_port_time_and_address() {
        let granted = Granted {
            external: 3479,
            lifetime: Duration::from_secs(3600),
        };
        let external_ip = Some(Ipv4Addr::new(203, 0, 113, 5));
        let whole = answer(0, 3479);
        assert_eq!(
            map_answer(&whole, PORT, NONCE),
            Some(Ok((granted, external_ip)))
        );
        assert_eq!(map_answer(&whole, PORT, [0; 12]), None);
        for end in 0..whole.len() {
            assert_eq!(map_answer(&whole[..end], PORT, NONCE), None, "{end}");
        }
        let refused = map_answer(&answer(2, 0), PORT, NONCE);
        assert_eq!(refused, Some(Err(Refusal::Forbidden)));
        // A router of the older protocol.
        let older = map_answer(&[0, 0x81, 0, 1, 0, 0, 0, 9], PORT, NONCE);
        assert_eq!(older, Some(Err(Refusal::Version)));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_without_fear(packet in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = map_answer(&packet, PORT, NONCE);
        }
    }
}
