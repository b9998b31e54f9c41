//! DERP frames: one byte of type, four bytes of big-endian length, and a body. Does no I/O. Source:
//! `derp/derp.go`.
//!
//! Decoding borrows from the input and cannot panic. Check the length bounds of the type
//! ([`Kind::body_len`]) on the header, before a body is buffered.

mod kind;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use bytes::BufMut;

pub use kind::Kind;

use crate::Key;

/// Protocol version in `ClientInfo`, `ServerInfo` and the HTTP response. Source:
/// `derp.ProtocolVersion`.
pub const PROTOCOL_VERSION: u32 = 2;

/// The first bytes of `ServerKey`. Source: `derp.Magic`.
pub const MAGIC: [u8; 8] = *b"DERP\xf0\x9f\x94\x91";

/// Length of a frame header in bytes. Source: `derp.FrameHeaderLen`.
pub const HEADER_LEN: usize = 5;

/// Largest packet in bytes, without keys and header. Source: `derp.MaxPacketSize`.
pub const MAX_PACKET_LEN: usize = 64 << 10;

/// The first bytes of a discovery packet. Source: `disco.Magic`.
pub const DISCO_MAGIC: [u8; 6] = *b"TS\xf0\x9f\x92\xac";

/// Shortest discovery packet in bytes: magic, sender's key, nonce. Source:
/// `disco.LooksLikeDiscoWrapper`.
pub const DISCO_MIN_LEN: usize = 62;

/// Whether a packet is a discovery packet, which has its own lane and may be answered with
/// `PeerGone`.
pub fn is_disco(packet: &[u8]) -> bool {
    packet.len() >= DISCO_MIN_LEN && packet.starts_with(&DISCO_MAGIC)
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type byte; see [`Kind::from_byte`].
    pub kind: u8,
    /// Length of the body in bytes.
    pub length: u32,
}

impl Header {
    /// Decodes a header.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        let [kind, length @ ..] = *bytes;
        Header {
            kind,
            length: u32::from_be_bytes(length),
        }
    }

    /// Encodes the header.
    pub fn encode(self, out: &mut impl BufMut) {
        out.put_u8(self.kind);
        out.put_u32(self.length);
    }
}

/// Why a peer is unreachable. Source: `derp.PeerGoneReasonType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerGoneReason {
    /// The peer was connected and has disconnected.
    Disconnected,
    /// The relay does not know the peer.
    NotHere,
    /// An unknown reason byte.
    Other(u8),
}

impl PeerGoneReason {
    fn from_byte(byte: u8) -> Self {
        match byte {
            0 => PeerGoneReason::Disconnected,
            1 => PeerGoneReason::NotHere,
            other => PeerGoneReason::Other(other),
        }
    }

    fn to_byte(self) -> u8 {
        match self {
            PeerGoneReason::Disconnected => 0,
            PeerGoneReason::NotHere => 1,
            PeerGoneReason::Other(other) => other,
        }
    }
}

/// Connection of a peer, as `PeerPresent` describes it. Old relays do not send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The peer's address.
    pub address: SocketAddr,
    /// Bits: 1 regular, 2 mesh peer, 4 prober, 8 not on its ideal node; 0 if absent. Source:
    /// `derp.PeerPresentFlags`.
    pub flags: u8,
}

/// A frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Relay to client, first: the relay's key. Bytes after the key are ignored.
    ServerKey(Key),
    /// Client to relay, first: the client's key, with a box that proves its ownership.
    ClientInfo {
        /// The client's key.
        key: Key,
        /// Nonce and box.
        sealed: &'a [u8],
    },
    /// Relay to client, after the login: nonce and box.
    ServerInfo(&'a [u8]),
    /// Client to relay: a packet for `destination`.
    SendPacket {
        /// The receiver's key.
        destination: Key,
        /// The packet.
        packet: &'a [u8],
    },
    /// Relay to client: a packet from `source`.
    RecvPacket {
        /// The sender's key.
        source: Key,
        /// The packet.
        packet: &'a [u8],
    },
    /// Relay to client: keepalive.
    KeepAlive,
    /// Client to relay: whether this relay is its home.
    NotePreferred(bool),
    /// Relay to client: the peer is unreachable here.
    PeerGone {
        /// The peer.
        peer: Key,
        /// Why.
        reason: PeerGoneReason,
    },
    /// Relay to mesh peer: a client is connected.
    PeerPresent {
        /// The client.
        peer: Key,
        /// Its connection; none from old relays.
        presence: Option<Presence>,
    },
    /// Mesh peer to relay: a packet from a client of that mesh peer.
    ForwardPacket {
        /// The sender's key.
        source: Key,
        /// The receiver's key.
        destination: Key,
        /// The packet.
        packet: &'a [u8],
    },
    /// Mesh peer to relay: subscribe to presence updates.
    WatchConns,
    /// Mesh peer to relay: close the connections of this key.
    ClosePeer(Key),
    /// Either direction: request for a pong with the same bytes.
    Ping([u8; 8]),
    /// Either direction: the answer to a ping.
    Pong([u8; 8]),
    /// Relay to client: the problem with its connection; empty if there is none.
    Health(&'a str),
    /// Relay to client: the relay restarts.
    Restarting {
        /// When to reconnect, in milliseconds.
        reconnect_in: u32,
        /// How long to retry, in milliseconds.
        try_for: u32,
    },
}

/// An invalid frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is outside the bounds of the type.
    #[error("{kind:?} frame with an invalid length of {length} bytes")]
    Length {
        /// The type.
        kind: Kind,
        /// The length of the body in bytes.
        length: u32,
    },
    /// `ServerKey` does not start with the magic bytes.
    #[error("ServerKey frame without the magic bytes")]
    Magic,
    /// `Health` is not UTF-8.
    #[error("Health frame is not UTF-8")]
    Text,
}

impl<'a> Frame<'a> {
    /// Decodes the body of a frame of type `kind`.
    pub fn decode(kind: Kind, body: &'a [u8]) -> Result<Self, FrameError> {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        kind.check_len(length)?;
        // After the length check no `take` below fails; the error replaces a panic.
        let short = FrameError::Length { kind, length };
        let mut rest = Body(body);
        Ok(match kind {
            Kind::ServerKey => {
                if rest.take::<8>() != Some(MAGIC) {
                    return Err(FrameError::Magic);
                }
                Frame::ServerKey(rest.key().ok_or(short)?)
            }
            Kind::ClientInfo => Frame::ClientInfo {
                key: rest.key().ok_or(short)?,
                sealed: rest.0,
            },
            Kind::ServerInfo => Frame::ServerInfo(rest.0),
            Kind::SendPacket => Frame::SendPacket {
                destination: rest.key().ok_or(short)?,
                packet: rest.0,
            },
            Kind::RecvPacket => Frame::RecvPacket {
                source: rest.key().ok_or(short)?,
                packet: rest.0,
            },
            Kind::KeepAlive => Frame::KeepAlive,
            Kind::NotePreferred => Frame::NotePreferred(rest.take::<1>().ok_or(short)? != [0]),
            Kind::PeerGone => Frame::PeerGone {
                peer: rest.key().ok_or(short)?,
                // Old relays send no reason byte, which means zero.
                reason: PeerGoneReason::from_byte(rest.0.first().copied().unwrap_or_default()),
            },
            Kind::PeerPresent => Frame::PeerPresent {
                peer: rest.key().ok_or(short)?,
                presence: rest.presence(),
            },
            Kind::ForwardPacket => Frame::ForwardPacket {
                source: rest.key().ok_or(short)?,
                destination: rest.key().ok_or(short)?,
                packet: rest.0,
            },
            Kind::WatchConns => Frame::WatchConns,
            Kind::ClosePeer => Frame::ClosePeer(rest.key().ok_or(short)?),
            Kind::Ping => Frame::Ping(rest.take().ok_or(short)?),
            Kind::Pong => Frame::Pong(rest.take().ok_or(short)?),
            Kind::Health => {
                Frame::Health(std::str::from_utf8(rest.0).map_err(|_| FrameError::Text)?)
            }
            Kind::Restarting => Frame::Restarting {
                reconnect_in: u32::from_be_bytes(rest.take().ok_or(short)?),
                try_for: u32::from_be_bytes(rest.take().ok_or(short)?),
            },
        })
    }

    /// The type of this frame.
    pub fn kind(&self) -> Kind {
        match self {
            Frame::ServerKey(_) => Kind::ServerKey,
            Frame::ClientInfo { .. } => Kind::ClientInfo,
            Frame::ServerInfo(_) => Kind::ServerInfo,
            Frame::SendPacket { .. } => Kind::SendPacket,
            Frame::RecvPacket { .. } => Kind::RecvPacket,
            Frame::KeepAlive => Kind::KeepAlive,
            Frame::NotePreferred(_) => Kind::NotePreferred,
            Frame::PeerGone { .. } => Kind::PeerGone,
            Frame::PeerPresent { .. } => Kind::PeerPresent,
            Frame::ForwardPacket { .. } => Kind::ForwardPacket,
            Frame::WatchConns => Kind::WatchConns,
            Frame::ClosePeer(_) => Kind::ClosePeer,
            Frame::Ping(_) => Kind::Ping,
            Frame::Pong(_) => Kind::Pong,
            Frame::Health(_) => Kind::Health,
            Frame::Restarting { .. } => Kind::Restarting,
        }
    }

    /// Length of the body in bytes, as [`Frame::encode`] writes it.
    pub fn body_len(&self) -> usize {
        match self {
            Frame::ServerKey(_) => MAGIC.len().saturating_add(Key::LEN),
            Frame::ClientInfo { sealed, .. } => Key::LEN.saturating_add(sealed.len()),
            Frame::ServerInfo(sealed) => sealed.len(),
            Frame::SendPacket { packet, .. } | Frame::RecvPacket { packet, .. } => {
                Key::LEN.saturating_add(packet.len())
            }
            Frame::ForwardPacket { packet, .. } => {
                Key::LEN.saturating_mul(2).saturating_add(packet.len())
            }
            Frame::KeepAlive | Frame::WatchConns => 0,
            Frame::NotePreferred(_) => 1,
            Frame::PeerGone { .. } => 33,
            Frame::PeerPresent { presence: None, .. } | Frame::ClosePeer(_) => Key::LEN,
            Frame::PeerPresent {
                presence: Some(_), ..
            } => 51,
            Frame::Ping(_) | Frame::Pong(_) | Frame::Restarting { .. } => 8,
            Frame::Health(text) => text.len(),
        }
    }

    /// Encodes header and body, [`HEADER_LEN`] + [`Frame::body_len`] bytes. Does not check the length
    /// bounds.
    pub fn encode(&self, out: &mut impl BufMut) {
        let length = u32::try_from(self.body_len()).unwrap_or(u32::MAX);
        Header {
            kind: self.kind().to_byte(),
            length,
        }
        .encode(out);
        match *self {
            Frame::ServerKey(key) => {
                out.put_slice(&MAGIC);
                out.put_slice(key.as_bytes());
            }
            Frame::ClientInfo { key, sealed: bytes }
            | Frame::SendPacket {
                destination: key,
                packet: bytes,
            }
            | Frame::RecvPacket {
                source: key,
                packet: bytes,
            } => {
                out.put_slice(key.as_bytes());
                out.put_slice(bytes);
            }
            Frame::ServerInfo(sealed) => out.put_slice(sealed),
            Frame::KeepAlive | Frame::WatchConns => {}
            Frame::NotePreferred(preferred) => out.put_u8(u8::from(preferred)),
            Frame::PeerGone { peer, reason } => {
                out.put_slice(peer.as_bytes());
                out.put_u8(reason.to_byte());
            }
            Frame::PeerPresent { peer, presence } => {
                out.put_slice(peer.as_bytes());
                if let Some(Presence { address, flags }) = presence {
                    let ip = match address.ip() {
                        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                        IpAddr::V6(ip) => ip,
                    };
                    out.put_slice(&ip.octets());
                    out.put_u16(address.port());
                    out.put_u8(flags);
                }
            }
            Frame::ForwardPacket {
                source,
                destination,
                packet,
            } => {
                out.put_slice(source.as_bytes());
                out.put_slice(destination.as_bytes());
                out.put_slice(packet);
            }
            Frame::ClosePeer(key) => out.put_slice(key.as_bytes()),
            Frame::Ping(data) | Frame::Pong(data) => out.put_slice(&data),
            Frame::Health(text) => out.put_slice(text.as_bytes()),
            Frame::Restarting {
                reconnect_in,
                try_for,
            } => {
                out.put_u32(reconnect_in);
                out.put_u32(try_for);
            }
        }
    }
}

/// The rest of a body.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn key(&mut self) -> Option<Key> {
        self.take().map(Key::from)
    }

    /// Address, port and flags of `PeerPresent`; older versions send no flags.
    fn presence(&mut self) -> Option<Presence> {
        let ip = IpAddr::V6(Ipv6Addr::from(self.take::<16>()?)).to_canonical();
        let port = u16::from_be_bytes(self.take()?);
        let flags = self.0.first().copied().unwrap_or_default();
        Some(Presence {
            address: SocketAddr::new(ip, port),
            flags,
        })
    }
}
