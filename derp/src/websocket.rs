//! WebSocket protocol (RFC 6455), the server's side: binary messages as a stream of bytes, without
//! message boundaries. All but [`WebSocket`] does no I/O.
//!
//! Messages are not buffered: decoded bytes are passed on at once. No extensions are negotiated, so
//! there is no compression.

#[cfg(feature = "tokio")]
mod stream;

use data_encoding::BASE64;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
#[cfg(feature = "tokio")]
pub use stream::WebSocket;

/// Subprotocol of DERP. Source: `derpserver.AddWebSocketSupport`.
pub const SUBPROTOCOL: &str = "derp";

/// The only protocol version. Source: RFC 6455 section 4.1.
pub const VERSION: &str = "13";

/// Close code of a normal closure. Source: RFC 6455 section 7.4.1, also for the next two.
pub const NORMAL: u16 = 1000;
/// Close code of a protocol error.
pub const PROTOCOL_ERROR: u16 = 1002;
/// Close code of a message that is not binary.
pub const UNSUPPORTED: u16 = 1003;

/// Longest payload of a control frame in bytes. Source: RFC 6455 section 5.5.
const MAX_CONTROL: usize = 125;

/// Longest frame header in bytes: two, a length of eight and a mask of four.
const MAX_HEADER: usize = 14;

/// Longest control frame of the server in bytes.
pub const CONTROL_LEN: usize = MAX_CONTROL + 2;

/// The response's `Sec-WebSocket-Accept` to the request's `Sec-WebSocket-Key`; none if the key is
/// not 16 bytes in base64. Source: RFC 6455 section 4.2.
pub fn accept(key: &[u8]) -> Option<String> {
    let is_valid = BASE64.decode(key).is_ok_and(|key| key.len() == 16);
    is_valid.then(|| {
        let text = [key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
        BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text).as_ref())
    })
}

/// Protocol error of the client; the connection is closed with [`WebSocketError::code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    /// A frame that RFC 6455 does not allow.
    #[error("invalid WebSocket frame")]
    Frame,
    /// A text message.
    #[error("WebSocket message is not binary")]
    Text,
}

impl WebSocketError {
    /// The code of the close frame.
    pub fn code(self) -> u16 {
        match self {
            WebSocketError::Frame => PROTOCOL_ERROR,
            WebSocketError::Text => UNSUPPORTED,
        }
    }
}

/// Writes the header of a binary message of `length` bytes to the front of `out`. Returns the
/// header's length. Servers do not mask.
pub fn binary_header(length: usize, out: &mut [u8; 10]) -> usize {
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    let (second, long, used) = match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short <= 125 => (short, [0; 8], 2),
        (_, Ok(medium)) => {
            let [high, low] = medium.to_be_bytes();
            (126, [high, low, 0, 0, 0, 0, 0, 0], 4)
        }
        _ => (127, length.to_be_bytes(), 10),
    };
    let bytes = [0x82, second].into_iter().chain(long);
    out.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    used
}

/// A control frame that the server sends between messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Pong to a ping.
    Pong(heapless::Vec<u8, MAX_CONTROL>),
    /// Close with this code.
    Close(u16),
}

impl Control {
    /// The whole frame.
    pub fn frame(&self) -> heapless::Vec<u8, CONTROL_LEN> {
        let code;
        let (first, payload) = match self {
            Control::Pong(data) => (0x8a, data.as_slice()),
            Control::Close(number) => {
                code = number.to_be_bytes();
                (0x88, &code[..])
            }
        };
        let length = u8::try_from(payload.len()).unwrap_or_default();
        let mut frame = heapless::Vec::new();
        // This cannot fail: a payload has at most 125 bytes.
        let _ = frame.extend_from_slice(&[first, length]);
        let _ = frame.extend_from_slice(payload);
        frame
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Message,
    Ping,
    Pong,
    Close,
}

/// The payload that is being read.
#[derive(Clone, Copy, Debug)]
struct Payload {
    content: Content,
    left: u64,
    mask: [u8; 4],
    /// Position in the mask.
    at: usize,
}

/// Frame decoder. Source: RFC 6455 section 5.2.
#[derive(Debug, Default)]
pub struct Decoder {
    header: heapless::Vec<u8, MAX_HEADER>,
    payload: Option<Payload>,
    /// Inside a message of several frames.
    is_continued: bool,
    data: heapless::Vec<u8, MAX_CONTROL>,
    /// The last control frame to send; a client that pings faster gets fewer pongs.
    control: Option<Control>,
    is_closed: bool,
}

impl Decoder {
    /// Decodes bytes of the client in place: moves message bytes to the front, and returns their
    /// number.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<usize, WebSocketError> {
        let (mut read, mut kept) = (0_usize, 0_usize);
        while !self.is_closed {
            let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            let Some(payload) = &mut self.payload else {
                let byte = rest.first().copied().unwrap_or_default();
                read = read.saturating_add(1);
                self.push_header_byte(byte)?;
                continue;
            };
            let most = usize::try_from(payload.left).unwrap_or(usize::MAX);
            let length = rest.len().min(most);
            let part = rest.get_mut(..length).unwrap_or_default();
            unmask(part, payload);
            if payload.content == Content::Message {
                bytes.copy_within(read..read.saturating_add(length), kept);
                kept = kept.saturating_add(length);
            } else {
                // This cannot fail: the length in the header was checked.
                let _ = self.data.extend_from_slice(part);
            }
            read = read.saturating_add(length);
            self.finish_payload();
        }
        Ok(kept)
    }

    /// The control frame to send in response to the frames so far.
    pub fn take_control(&mut self) -> Option<Control> {
        self.control.take()
    }

    /// Whether the client has sent a close frame.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn push_header_byte(&mut self, byte: u8) -> Result<(), WebSocketError> {
        self.header.push(byte).map_err(|_| WebSocketError::Frame)?;
        let &[first, second, ref rest @ ..] = self.header.as_slice() else {
            return Ok(());
        };
        let length_bytes = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some((length, mask)) = rest.split_at_checked(length_bytes) else {
            return Ok(());
        };
        let Ok(mask) = <[u8; 4]>::try_from(mask) else {
            return Ok(());
        };
        let long = length
            .iter()
            .fold(0, |sum: u64, byte| (sum << 8) | u64::from(*byte));
        let left = if length_bytes == 0 {
            u64::from(second & 0x7f)
        } else {
            long
        };
        let (is_last, is_masked) = (first & 0x80 != 0, second & 0x80 != 0);
        if first & 0x70 != 0 || !is_masked || left > u64::MAX >> 1 {
            return Err(WebSocketError::Frame);
        }
        let content = match (first & 0x0f, self.is_continued) {
            (0, true) | (2, false) => {
                self.is_continued = !is_last;
                Content::Message
            }
            (1, false) => return Err(WebSocketError::Text),
            (8, _) => Content::Close,
            (9, _) => Content::Ping,
            (10, _) => Content::Pong,
            _ => return Err(WebSocketError::Frame),
        };
        if content != Content::Message && (!is_last || left > MAX_CONTROL as u64) {
            return Err(WebSocketError::Frame);
        }
        self.header.clear();
        self.payload = Some(Payload {
            content,
            left,
            mask,
            at: 0,
        });
        self.finish_payload();
        Ok(())
    }

    fn finish_payload(&mut self) {
        let Some(Payload {
            left: 0, content, ..
        }) = self.payload
        else {
            return;
        };
        self.payload = None;
        let data = std::mem::take(&mut self.data);
        match content {
            Content::Message | Content::Pong => {}
            Content::Ping => self.control = Some(Control::Pong(data)),
            Content::Close => {
                self.control = Some(Control::Close(NORMAL));
                self.is_closed = true;
            }
        }
    }
}

fn unmask(bytes: &mut [u8], payload: &mut Payload) {
    let mask = payload.mask.iter().cycle().skip(payload.at);
    bytes
        .iter_mut()
        .zip(mask)
        .for_each(|(byte, mask)| *byte ^= mask);
    payload.at = payload.at.wrapping_add(bytes.len()) % 4;
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    payload.left = payload.left.saturating_sub(length);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as a client sends it.
    fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut header = [0; 10];
        let used = binary_header(payload.len(), &mut header);
        let mut bytes = header[..used].to_vec();
        bytes[0] = first;
        bytes[1] |= 0x80;
        bytes.extend(mask);
        let masked = payload.iter().zip(mask.iter().cycle());
        bytes.extend(masked.map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// Decodes in chunks of `piece` bytes.
    fn decode(
        decoder: &mut Decoder,
        bytes: &[u8],
        piece: usize,
    ) -> Result<Vec<u8>, WebSocketError> {
        let mut all = Vec::new();
        for part in bytes.chunks(piece) {
            let mut part = part.to_vec();
            let kept = decoder.decode(&mut part)?;
            all.extend_from_slice(&part[..kept]);
        }
        Ok(all)
    }

    /// RFC 6455 section 1.3.
    #[test]
    fn accept_value_is_that_of_the_rfc() {
        let expected = Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ==").as_deref(), expected);
        assert_eq!(accept(b"dGhlIHNhbXBsZQ=="), None);
        assert_eq!(accept(b"no base64"), None);
    }

    /// RFC 6455 section 5.7.
    #[test]
    fn ping_of_the_rfc_is_answered() {
        let ping = [
            0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let mut decoder = Decoder::default();
        assert_eq!(decode(&mut decoder, &ping, 3), Ok(vec![]));
        let pong = decoder.take_control().unwrap().frame();
        assert_eq!(pong.as_slice(), [&[0x8a, 5], &b"Hello"[..]].concat());
    }

    #[test]
    fn lengths_are_encoded_in_the_shortest_form() {
        let mut header = [0; 10];
        for (length, expected) in [
            (125, &[0x82, 125][..]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 255, 255]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let used = binary_header(length, &mut header);
            assert_eq!(&header[..used], expected);
        }
    }

    #[test]
    fn messages_are_one_stream_in_chunks_of_any_size() {
        let bytes = [
            frame(0x02, b"one ", [1, 2, 3, 4]),
            frame(0x89, b"ping", [9, 9, 9, 9]),
            frame(0x00, b"two ", [5, 6, 7, 8]),
            frame(0x80, b"three ", [0; 4]),
            frame(0x82, b"", [1; 4]),
            frame(0x82, &[7; 70_000], [3, 1, 4, 1]),
            frame(0x88, &[3, 232], [1; 4]),
            frame(0x82, b"after the end", [1; 4]),
        ]
        .concat();
        for piece in [1, 2, 7, 100, bytes.len()] {
            let mut decoder = Decoder::default();
            let all = decode(&mut decoder, &bytes, piece).unwrap();
            assert_eq!(&all[..14], b"one two three ");
            assert_eq!(all[14..], [7; 70_000]);
            assert!(decoder.is_closed());
            assert_eq!(decoder.take_control(), Some(Control::Close(NORMAL)));
        }
    }

    #[test]
    fn invalid_frames_are_rejected() {
        for (bytes, broken) in [
            (frame(0x81, b"text", [0; 4]), WebSocketError::Text),
            (frame(0xc2, b"compressed", [0; 4]), WebSocketError::Frame),
            (
                frame(0x80, b"continues nothing", [0; 4]),
                WebSocketError::Frame,
            ),
            (frame(0x83, b"unknown", [0; 4]), WebSocketError::Frame),
            (frame(0x09, b"ping in parts", [0; 4]), WebSocketError::Frame),
            (frame(0x89, &[0; 126], [0; 4]), WebSocketError::Frame),
            (vec![0x82, 0x04, 1, 2, 3, 4], WebSocketError::Frame),
            (
                vec![0x82, 0xff, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                WebSocketError::Frame,
            ),
        ] {
            assert_eq!(
                decode(&mut Decoder::default(), &bytes, 1),
                Err(broken),
                "{bytes:?}"
            );
        }
        let started = [frame(0x02, b"a", [0; 4]), frame(0x82, b"b", [0; 4])].concat();
        assert_eq!(
            decode(&mut Decoder::default(), &started, 9),
            Err(WebSocketError::Frame)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300), piece in 1_usize..20,
        ) {
            let mut decoder = Decoder::default();
            if let Ok(all) = decode(&mut decoder, &bytes, piece) {
                prop_assert!(all.len() <= bytes.len());
            }
        }

        #[test]
        fn encoded_messages_are_decoded(
            parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..400), any::<[u8; 4]>()), 0..8),
            piece in 1_usize..600,
        ) {
            let bytes: Vec<u8> = parts.iter().flat_map(|(part, mask)| frame(0x82, part, *mask)).collect();
            let sent: Vec<u8> = parts.iter().flat_map(|(part, _)| part.clone()).collect();
            prop_assert_eq!(decode(&mut Decoder::default(), &bytes, piece), Ok(sent));
        }
    }
}
