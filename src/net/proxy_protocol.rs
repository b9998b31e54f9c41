//! The PROXY protocol, versions 1 and 2: what a proxy that passes bytes on says about its client, before the first of
//! these bytes.
//!
//! Source: "The PROXY protocol", versions 1 and 2, `doc/proxy-protocol.txt` in haproxy.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// Start of a header of version 1. Source: section 2.1.
const V1: &[u8] = b"PROXY ";
/// Longest header of version 1, its line end included. Source: section 2.1.
const V1_MAX: usize = 107;
/// Start of a header of version 2. Source: section 2.2.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes before the addresses of version 2. Source: section 2.2.
const V2_FIXED: usize = 16;
/// Longest header. The addresses take 216 bytes at most; the rest is for what haproxy adds about TLS.
const MAX: usize = 2048;

/// Time between two looks at a header of which only a part has arrived. Proxies send it in one piece.
const PAUSE: Duration = Duration::from_millis(10);

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Not a header.
    Other,
    /// More bytes are needed to tell.
    Incomplete,
    /// A header.
    Header {
        /// Its length in bytes.
        length: usize,
        /// The client; `None` if the proxy itself is the client, or does not know.
        client: Option<SocketAddr>,
    },
}

/// An invalid header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid PROXY protocol header")]
pub struct Invalid;

/// Parses the first bytes of a connection.
///
/// # Errors
/// If they begin like a header but are none, or are longer than 2 KiB.
pub fn parse(bytes: &[u8]) -> Result<Start, Invalid> {
    let may_become = |start: &[u8]| bytes.len() < start.len() && start.starts_with(bytes);
    if let Some(rest) = bytes.strip_prefix(V1) {
        parse_v1(rest)
    } else if bytes.starts_with(V2) {
        parse_v2(bytes)
    } else if may_become(V1) || may_become(V2) {
        Ok(Start::Incomplete)
    } else {
        Ok(Start::Other)
    }
}

fn parse_v1(rest: &[u8]) -> Result<Start, Invalid> {
    let most = V1_MAX.saturating_sub(V1.len());
    let line = rest.get(..most).unwrap_or(rest);
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return match rest.len() < most {
            true => Ok(Start::Incomplete),
            false => Err(Invalid),
        };
    };
    let text = line.get(..end).and_then(|line| str::from_utf8(line).ok());
    let mut words = text.ok_or(Invalid)?.split(' ');
    let client = match words.next() {
        // What follows has no meaning.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(v1_client::<Ipv4Addr>(words)?),
        Some("TCP6") => Some(v1_client::<Ipv6Addr>(words)?),
        _ => return Err(Invalid),
    };
    let length = V1.len().saturating_add(end).saturating_add(2);
    Ok(Start::Header { length, client })
}

/// The client of `<source> <destination> <source port> <destination port>`.
fn v1_client<'a, A>(mut words: impl Iterator<Item = &'a str>) -> Result<SocketAddr, Invalid>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let mut next = || words.next().ok_or(Invalid);
    let address = |text: &str| text.parse::<A>().map_err(|_| Invalid);
    let (source, _) = (address(next()?)?, address(next()?)?);
    let (source_port, _) = (port(next()?)?, port(next()?)?);
    match words.next() {
        None => Ok(socket(source.into(), source_port)),
        Some(_) => Err(Invalid),
    }
}

/// A port without leading zeros.
fn port(text: &str) -> Result<u16, Invalid> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match is_digits && (text == "0" || !text.starts_with('0')) {
        true => text.parse().map_err(|_| Invalid),
        false => Err(Invalid),
    }
}

fn parse_v2(bytes: &[u8]) -> Result<Start, Invalid> {
    let Some((fixed, _)) = bytes.split_first_chunk::<V2_FIXED>() else {
        return Ok(Start::Incomplete);
    };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low])).saturating_add(V2_FIXED);
    // Version 2 with LOCAL or PROXY; AF_UNSPEC to AF_UNIX with UNSPEC to DGRAM.
    if length > MAX || !matches!(command, 0x20 | 0x21) || family >> 4 > 3 || family & 15 > 2 {
        return Err(Invalid);
    }
    let Some(addresses) = bytes.get(V2_FIXED..length) else {
        return Ok(Start::Incomplete);
    };
    let client = match (command, family) {
        (0x21, 0x11) => {
            let [a, b, c, d, _, _, _, _, high, low, _, _] = first(addresses)?;
            let address = Ipv4Addr::new(a, b, c, d);
            Some(socket(address.into(), u16::from_be_bytes([high, low])))
        }
        (0x21, 0x21) => {
            let source: [u8; 16] = first(addresses)?;
            let [.., high, low, _, _] = first::<36>(addresses)?;
            let address = Ipv6Addr::from(source);
            Some(socket(address.into(), u16::from_be_bytes([high, low])))
        }
        // LOCAL, or addresses that are not those of a TCP connection: those of the connection count.
        _ => None,
    };
    Ok(Start::Header { length, client })
}

fn first<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Invalid> {
    bytes.first_chunk().copied().ok_or(Invalid)
}

fn socket(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

/// Takes a header from the start of a connection: the client that it names, within `Some` if there is a header.
/// Without one nothing is read. Waits without end for a peer that sends nothing.
///
/// # Errors
/// If the header is invalid, or the transport fails.
pub(super) async fn take(stream: &mut TcpStream) -> io::Result<Option<Option<SocketAddr>>> {
    let mut buffer = vec![0; MAX];
    loop {
        let received = stream.peek(&mut buffer).await?;
        let start = parse(buffer.get(..received).unwrap_or_default());
        match start.map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))? {
            Start::Header { length, client } => {
                buffer.truncate(length);
                stream.read_exact(&mut buffer).await?;
                return Ok(Some(client));
            }
            Start::Incomplete if received > 0 => sleep(PAUSE).await,
            Start::Other | Start::Incomplete => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &length, addresses].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x34, 0, 80];

    fn v6() -> Vec<u8> {
        let source: Ipv6Addr = "2001:db8::1".parse().unwrap();
        [&source.octets()[..], &source.octets(), &[0, 5, 0, 80]].concat()
    }

    fn headers() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let tlv = [&V4[..], &[0x20, 0, 3, 1, 2, 3]].concat();
        vec![
            (
                b"PROXY TCP4 192.0.2.1 192.0.2.2 4660 80\r\n".to_vec(),
                Some("192.0.2.1:4660"),
            ),
            (
                b"PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n".to_vec(),
                Some("[2001:db8::1]:0"),
            ),
            (
                b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n".to_vec(),
                Some("192.0.2.1:1"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 anything\r\n".to_vec(), None),
            (v2(0x21, 0x11, &V4), Some("192.0.2.1:4660")),
            (v2(0x21, 0x11, &tlv), Some("192.0.2.1:4660")),
            (v2(0x21, 0x21, &v6()), Some("[2001:db8::1]:5")),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, &V4), None),
            (v2(0x21, 0x00, &[]), None),
            (v2(0x21, 0x31, &[0; 216]), None),
            (v2(0x21, 0x12, &V4), None),
        ]
    }

    #[test]
    fn a_header_names_the_client_wherever_it_is_cut() {
        for (header, client) in headers() {
            let client = client.map(|client| client.parse().unwrap());
            let length = header.len();
            let expected = Ok(Start::Header { length, client });
            assert_eq!(parse(&header), expected, "{header:?}");
            let followed = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&followed), expected);
            for cut in 0..length {
                assert_eq!(parse(&header[..cut]), Ok(Start::Incomplete), "{cut}");
            }
        }
    }

    #[test]
    fn other_protocols_are_no_headers() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"POST / HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n",
            b"PROXX ",
            b"\x16\x03\x01",
            b"\r\n\r\nGET /",
        ] {
            assert_eq!(parse(bytes), Ok(Start::Other), "{bytes:?}");
        }
    }

    #[test]
    fn invalid_headers_are_refused() {
        let long = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 100]].concat();
        let texts = [
            "PROXY TCP4 192.0.2.1 192.0.2.2 4660\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 4660 80 1\r\n",
            "PROXY TCP4 192.0.2.1  192.0.2.2 4660 80\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 4660 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 01 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 80\r\n",
            "PROXY TCP4 192.0.2.01 192.0.2.2 1 80\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 80\r\n",
            "PROXY tcp4 192.0.2.1 192.0.2.2 1 80\r\n",
            "PROXY  TCP4 192.0.2.1 192.0.2.2 1 80\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 1 80\r\n",
            "PROXY \r\n",
        ];
        let binary = [
            v2(0x11, 0x11, &V4),
            v2(0x22, 0x11, &V4),
            v2(0x21, 0x41, &V4),
            v2(0x21, 0x13, &V4),
            v2(0x21, 0x11, &V4[..11]),
            v2(0x21, 0x21, &V4),
            v2(0x21, 0x11, &[0; MAX]),
        ];
        let texts = texts.iter().map(|text| text.as_bytes().to_vec());
        for bytes in texts.chain(binary).chain([long]) {
            assert_eq!(parse(&bytes), Err(Invalid), "{bytes:?}");
        }
    }

    proptest! {
        /// More bytes never change what was said of the first ones.
        #[test]
        fn what_follows_changes_nothing(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            which in 0_usize..14,
            cut in 0_usize..300,
        ) {
            let header = headers().into_iter().nth(which).map(|(header, _)| header);
            let bytes = [header.unwrap_or_default(), bytes].concat();
            let early = parse(&bytes[..cut.min(bytes.len())]);
            prop_assert!(early == Ok(Start::Incomplete) || early == parse(&bytes));
        }
    }

    #[tokio::test]
    async fn nothing_but_the_header_is_taken_from_the_connection() {
        for (sent, pieces) in [
            (
                &b"PROXY TCP4 192.0.2.1 192.0.2.2 4660 80\r\nrest"[..],
                [3, 20],
            ),
            (b"rest", [1, 2]),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let talk = async {
                let mut client = TcpStream::connect(address).await.unwrap();
                let (first, second) = sent.split_at(pieces[0]);
                let (second, third) = second.split_at(pieces[1]);
                for piece in [first, second, third] {
                    client.write_all(piece).await.unwrap();
                    sleep(PAUSE / 2).await;
                }
            };
            let serve = async {
                let mut stream = listener.accept().await.unwrap().0;
                let found = take(&mut stream).await.unwrap();
                let mut rest = String::new();
                stream.read_to_string(&mut rest).await.unwrap();
                (found, rest)
            };
            let ((found, rest), ()) = tokio::join!(serve, talk);
            let client = "192.0.2.1:4660".parse().unwrap();
            let expected = (sent.len() > 4).then_some(Some(client));
            assert_eq!((found, rest.as_str()), (expected, "rest"));
        }
    }
}
