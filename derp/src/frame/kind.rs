//! Frame types and their length bounds.

use std::ops::RangeInclusive;

use super::FrameError;

/// The type of a frame. Source: `derp.FrameType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// `derp.FrameServerKey`
    ServerKey = 0x01,
    /// `derp.FrameClientInfo`
    ClientInfo = 0x02,
    /// `derp.FrameServerInfo`
    ServerInfo = 0x03,
    /// `derp.FrameSendPacket`
    SendPacket = 0x04,
    /// `derp.FrameRecvPacket`
    RecvPacket = 0x05,
    /// `derp.FrameKeepAlive`
    KeepAlive = 0x06,
    /// `derp.FrameNotePreferred`
    NotePreferred = 0x07,
    /// `derp.FramePeerGone`
    PeerGone = 0x08,
    /// `derp.FramePeerPresent`
    PeerPresent = 0x09,
    /// `derp.FrameForwardPacket`
    ForwardPacket = 0x0a,
    /// `derp.FrameWatchConns`
    WatchConns = 0x10,
    /// `derp.FrameClosePeer`
    ClosePeer = 0x11,
    /// `derp.FramePing`
    Ping = 0x12,
    /// `derp.FramePong`
    Pong = 0x13,
    /// `derp.FrameHealth`
    Health = 0x14,
    /// `derp.FrameRestarting`
    Restarting = 0x15,
}

impl Kind {
    /// Every type.
    pub const ALL: [Kind; 16] = [
        Kind::ServerKey,
        Kind::ClientInfo,
        Kind::ServerInfo,
        Kind::SendPacket,
        Kind::RecvPacket,
        Kind::KeepAlive,
        Kind::NotePreferred,
        Kind::PeerGone,
        Kind::PeerPresent,
        Kind::ForwardPacket,
        Kind::WatchConns,
        Kind::ClosePeer,
        Kind::Ping,
        Kind::Pong,
        Kind::Health,
        Kind::Restarting,
    ];

    /// The type of this byte; none if it is unknown. Receivers skip unknown frames.
    pub fn from_byte(byte: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.to_byte() == byte)
    }

    /// The byte of this type.
    pub fn to_byte(self) -> u8 {
        self as u8
    }

    /// Shortest and longest body in bytes.
    ///
    /// The reference has exact bounds for the frames that a relay receives
    /// (`derpserver.sclient.handleFrame...`) and for the two boxes. Frames that it sends may become
    /// longer in later versions: their lower bound is the part known today, and the upper bound is 1
    /// KiB, as for the greeting (`derp.Client.recvServerKey`), or the 1 MiB limit of its client.
    pub fn body_len(self) -> RangeInclusive<u32> {
        match self {
            Kind::ServerKey => 40..=1 << 10,
            Kind::ClientInfo => 56..=256 << 10,
            Kind::ServerInfo => 24..=(1 << 20) + 24,
            Kind::SendPacket | Kind::RecvPacket => 32..=(64 << 10) + 32,
            Kind::KeepAlive => 0..=1 << 10,
            Kind::NotePreferred => 1..=1,
            Kind::PeerGone | Kind::PeerPresent => 32..=1 << 10,
            Kind::ForwardPacket => 64..=(64 << 10) + 64,
            Kind::WatchConns => 0..=0,
            Kind::ClosePeer => 32..=32,
            Kind::Ping | Kind::Pong => 8..=1000,
            Kind::Health => 0..=1 << 20,
            Kind::Restarting => 8..=1 << 10,
        }
    }

    /// Fails if a length is outside [`Kind::body_len`].
    pub fn check_len(self, length: u32) -> Result<(), FrameError> {
        if self.body_len().contains(&length) {
            Ok(())
        } else {
            Err(FrameError::Length { kind: self, length })
        }
    }
}
