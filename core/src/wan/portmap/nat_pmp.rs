//! NAT-PMP (RFC 6886).

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::wan::mapping::{Port, Transport};
use crate::wan::portmap::{Granted, Refusal, seconds};

/// The request for the external address. Source: section 3.2.
pub const ADDRESS_REQUEST: [u8; 2] = [0, 0];

/// The bit of a response. Source: section 3.1.
const ANSWER: u8 = 0x80;

fn operation(transport: Transport) -> u8 {
    match transport {
        Transport::Udp => 1,
        Transport::Tcp => 2,
    }
}

/// The request for a mapping; a `lifetime` of zero removes it. Source: sections 3.3 and 3.4.
pub fn map_request(port: Port, lifetime: Duration) -> [u8; 12] {
    let [high, low] = port.number.to_be_bytes();
    let external = match lifetime.is_zero() {
        true => 0,
        false => port.number,
    };
    let [wanted_high, wanted_low] = external.to_be_bytes();
    let [a, b, c, d] = seconds(lifetime).to_be_bytes();
    let operation = operation(port.transport);
    [
        0,
        operation,
        0,
        0,
        high,
        low,
        wanted_high,
        wanted_low,
        a,
        b,
        c,
        d,
    ]
}

/// The external address in a response; `None` if it responds to something else.
pub fn address_answer(packet: &[u8]) -> Option<Result<Ipv4Addr, Refusal>> {
    let rest = match of_operation(packet, 0)? {
        Ok(rest) => rest,
        Err(refusal) => return Some(Err(refusal)),
    };
    let (_epoch, rest) = rest.split_first_chunk::<4>()?;
    Some(Ok(Ipv4Addr::from(*rest.first_chunk::<4>()?)))
}

/// The mapping in a response; `None` if it responds to something else.
pub fn map_answer(packet: &[u8], port: Port) -> Option<Result<Granted, Refusal>> {
    let rest = match of_operation(packet, operation(port.transport))? {
        Ok(rest) => rest,
        Err(refusal) => return Some(Err(refusal)),
    };
    let (_epoch, rest) = rest.split_first_chunk::<4>()?;
    let (internal, rest) = rest.split_first_chunk::<2>()?;
    let (external, rest) = rest.split_first_chunk::<2>()?;
    let lifetime = rest.first_chunk::<4>()?;
    (u16::from_be_bytes(*internal) == port.number).then_some(Ok(Granted {
        external: u16::from_be_bytes(*external),
        lifetime: Duration::from_secs(u32::from_be_bytes(*lifetime).into()),
    }))
}

/// The rest of a response to this operation, after the result.
fn of_operation(packet: &[u8], operation: u8) -> Option<Result<&[u8], Refusal>> {
    let (&[version, kind, high, low], rest) = packet.split_first_chunk::<4>()?;
    if version != 0 || kind != operation | ANSWER {
        return None;
    }
    // Source of the numbers: section 3.5.
    Some(match u16::from_be_bytes([high, low]) {
        0 => Ok(rest),
        1 | 5 => Err(Refusal::Version),
        2 => Err(Refusal::Forbidden),
        3 => Err(Refusal::NoNetwork),
        4 => Err(Refusal::Taken),
        other => Err(Refusal::Other(other.into())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: Port = Port {
        transport: Transport::Tcp,
        number: 8080,
    };

    #[test]
    fn requests_are_as_the_rfc_has_them() {
        let wanted = map_request(PORT, Duration::from_secs(7200));
        assert_eq!(
            wanted,
            [0, 2, 0, 0, 0x1f, 0x90, 0x1f, 0x90, 0, 0, 0x1c, 0x20]
        );
        let gone = map_request(PORT, Duration::ZERO);
        assert_eq!(gone, [0, 2, 0, 0, 0x1f, 0x90, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn responses_are_read_and_unrelated_ones_skipped() {
        let address = [0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113, 5];
        assert_eq!(address_answer(&address), Some(Ok([203, 0, 113, 5].into())));
        assert_eq!(address_answer(&address[..11]), None);
        let map = [
            0, 130, 0, 0, 0, 0, 0, 9, 0x1f, 0x90, 0x1f, 0x91, 0, 0, 0x0e, 0x10,
        ];
        let granted = Granted {
            external: 8081,
            lifetime: Duration::from_secs(3600),
        };
        assert_eq!(map_answer(&map, PORT), Some(Ok(granted)));
        let other = Port {
            number: 8443,
            ..PORT
        };
        assert_eq!(map_answer(&map, other), None);
        assert_eq!(map_answer(&address, PORT), None);
        let refused = [0, 130, 0, 2, 0, 0, 0, 9];
        assert_eq!(map_answer(&refused, PORT), Some(Err(Refusal::Forbidden)));
        for end in 0..map.len() {
            assert_eq!(map_answer(&map[..end], PORT), None, "{end}");
        }
    }
}
