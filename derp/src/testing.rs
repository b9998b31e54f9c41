//! Test helpers: the client's half of the protocol.

use data_encoding::HEXLOWER;

use crate::frame::{DISCO_MAGIC, Frame, FrameError, HEADER_LEN, Header, Kind};
use crate::nacl::SharedKey;
use crate::{Key, ServerSecret};

pub(crate) fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

/// A discovery packet.
pub(crate) fn disco(length: usize, mark: u8) -> Vec<u8> {
    let mut packet = vec![mark; length];
    packet[..6].copy_from_slice(&DISCO_MAGIC);
    packet
}

pub(crate) fn encoded(frame: Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

pub(crate) fn secret(mark: u8) -> ServerSecret {
    ServerSecret::from_bytes([mark; 32])
}

/// The body of `ClientInfo` with this text in its box.
pub(crate) fn client_info_body(client: &ServerSecret, server: &Key, text: &[u8]) -> Vec<u8> {
    let sealed = SharedKey::new(client, server).seal(&[3; 24], text).unwrap();
    [&client.public().as_bytes()[..], &sealed].concat()
}

/// The `ClientInfo` frame of an ordinary client.
pub(crate) fn client_info(client: &ServerSecret, server: &Key) -> Vec<u8> {
    let body = client_info_body(client, server, br#"{"version":2,"CanAckPings":true}"#);
    encoded(Frame::decode(Kind::ClientInfo, &body).unwrap())
}

/// A frame that owns its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    pub kind: Kind,
    pub body: Vec<u8>,
}

impl Owned {
    pub(crate) fn frame(&self) -> Result<Frame<'_>, FrameError> {
        Frame::decode(self.kind, &self.body)
    }
}

/// Removes the first complete frame from `bytes`.
pub(crate) fn take_frame(bytes: &mut Vec<u8>) -> Option<Owned> {
    let header = Header::decode(bytes.first_chunk()?);
    let end = HEADER_LEN + header.length as usize;
    let body = bytes.get(HEADER_LEN..end)?.to_vec();
    bytes.drain(..end);
    Some(Owned {
        kind: Kind::from_byte(header.kind).unwrap(),
        body,
    })
}

/// All frames of `bytes`, which must be complete frames only.
pub(crate) fn frames(mut bytes: Vec<u8>) -> Vec<Owned> {
    let frames = std::iter::from_fn(|| take_frame(&mut bytes)).collect();
    assert!(bytes.is_empty(), "bytes after the last complete frame");
    frames
}
