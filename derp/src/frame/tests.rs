use proptest::prelude::*;

use super::*;
use crate::testing::encoded;

fn decoded(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (head, body) = bytes.split_first_chunk().unwrap();
    let header = Header::decode(head);
    assert_eq!(header.length as usize, body.len());
    Frame::decode(Kind::from_byte(header.kind).unwrap(), body)
}

/// One frame of each type, with all optional parts.
fn samples() -> [Frame<'static>; 16] {
    let (a, b) = (Key::from([0xaa; 32]), Key::from([0xbb; 32]));
    [
        Frame::ServerKey(a),
        Frame::ClientInfo {
            key: a,
            sealed: &[1; 40],
        },
        Frame::ServerInfo(&[2; 40]),
        Frame::SendPacket {
            destination: b,
            packet: b"packet",
        },
        Frame::RecvPacket {
            source: a,
            packet: b"packet",
        },
        Frame::KeepAlive,
        Frame::NotePreferred(true),
        Frame::PeerGone {
            peer: a,
            reason: PeerGoneReason::NotHere,
        },
        Frame::PeerPresent {
            peer: a,
            presence: Some(Presence {
                address: "1.2.3.4:5678".parse().unwrap(),
                flags: 9,
            }),
        },
        Frame::ForwardPacket {
            source: a,
            destination: b,
            packet: b"packet",
        },
        Frame::WatchConns,
        Frame::ClosePeer(b),
        Frame::Ping(*b"12345678"),
        Frame::Pong(*b"12345678"),
        Frame::Health("duplicate"),
        Frame::Restarting {
            reconnect_in: 1500,
            try_for: 60_000,
        },
    ]
}

#[test]
fn every_kind_round_trips_with_its_length() {
    for (frame, kind) in samples().into_iter().zip(Kind::ALL) {
        assert_eq!(frame.kind(), kind);
        let bytes = encoded(frame);
        assert_eq!(bytes.len(), HEADER_LEN + frame.body_len());
        assert_eq!(decoded(&bytes), Ok(frame));
    }
}

#[test]
fn layout_is_that_of_the_reference() {
    let key = Key::from([0xaa; 32]);
    let text = [
        &[0x01, 0, 0, 0, 40][..],
        b"DERP\xf0\x9f\x94\x91",
        &[0xaa; 32],
    ]
    .concat();
    assert_eq!(encoded(Frame::ServerKey(key)), text);
    assert_eq!(encoded(Frame::KeepAlive), [6, 0, 0, 0, 0]);
    assert_eq!(encoded(Frame::NotePreferred(true)), [7, 0, 0, 0, 1, 1]);
    let gone = [&[8, 0, 0, 0, 33][..], &[0xaa; 32], &[1]].concat();
    assert_eq!(
        encoded(Frame::PeerGone {
            peer: key,
            reason: PeerGoneReason::NotHere
        }),
        gone
    );
    assert_eq!(
        encoded(Frame::Restarting {
            reconnect_in: 1,
            try_for: 0x0102_0304
        }),
        [0x15, 0, 0, 0, 8, 0, 0, 0, 1, 1, 2, 3, 4]
    );
    let presence = Some(Presence {
        address: "1.2.3.4:258".parse().unwrap(),
        flags: 1,
    });
    let present = [
        &[9, 0, 0, 0, 51][..],
        &[0xaa; 32],
        &[0; 10],
        &[0xff, 0xff, 1, 2, 3, 4, 1, 2, 1],
    ]
    .concat();
    assert_eq!(
        encoded(Frame::PeerPresent {
            peer: key,
            presence
        }),
        present
    );
}

#[test]
fn frames_of_older_and_newer_relays_are_decoded() {
    let key = Key::from([5; 32]);
    let gone = Frame::PeerGone {
        peer: key,
        reason: PeerGoneReason::Disconnected,
    };
    assert_eq!(Frame::decode(Kind::PeerGone, &[5; 32]), Ok(gone));
    assert_eq!(
        Frame::decode(Kind::PeerPresent, &[5; 32]),
        Ok(Frame::PeerPresent {
            peer: key,
            presence: None
        })
    );
    let Ok(Frame::PeerPresent {
        presence: Some(presence),
        ..
    }) = Frame::decode(Kind::PeerPresent, &[5; 50])
    else {
        panic!("the 50-byte form has an address");
    };
    assert_eq!((presence.address.port(), presence.flags), (0x0505, 0));
    let longer = [&MAGIC[..], &[5; 32], b"more"].concat();
    assert_eq!(
        Frame::decode(Kind::ServerKey, &longer),
        Ok(Frame::ServerKey(key))
    );
    assert_eq!(
        Frame::decode(Kind::Ping, &[9; 1000]),
        Ok(Frame::Ping([9; 8]))
    );
}

#[test]
fn lengths_outside_the_bounds_are_rejected() {
    for kind in Kind::ALL {
        let (min, max) = kind.body_len().into_inner();
        for length in [min.checked_sub(1), Some(max + 1)].into_iter().flatten() {
            assert_eq!(
                kind.check_len(length),
                Err(FrameError::Length { kind, length })
            );
            assert!(Frame::decode(kind, &vec![0; length as usize]).is_err());
        }
        assert!(kind.check_len(min).is_ok() && kind.check_len(max).is_ok());
    }
}

#[test]
fn invalid_magic_and_invalid_text_are_rejected() {
    assert_eq!(
        Frame::decode(Kind::ServerKey, &[0; 40]),
        Err(FrameError::Magic)
    );
    assert_eq!(Frame::decode(Kind::Health, &[0xff]), Err(FrameError::Text));
}

#[test]
fn every_truncation_is_rejected_or_encodes_to_the_same_bytes() {
    for frame in samples() {
        let bytes = encoded(frame);
        for end in HEADER_LEN..bytes.len() {
            if let Ok(shorter) = Frame::decode(frame.kind(), &bytes[HEADER_LEN..end]) {
                let again = encoded(shorter);
                assert_eq!(decoded(&again), Ok(shorter));
            }
        }
    }
}

#[test]
fn discovery_packets_have_the_magic_and_the_minimum_length() {
    let mut packet = [0; DISCO_MIN_LEN];
    packet[..6].copy_from_slice(&DISCO_MAGIC);
    assert!(is_disco(&packet));
    assert!(!is_disco(&packet[..DISCO_MIN_LEN - 1]));
    packet[5] ^= 1;
    assert!(!is_disco(&packet));
}

proptest! {
    #[test]
    fn any_body_decodes_or_fails_and_what_decodes_encodes_again(
        kind in prop::sample::select(Kind::ALL.to_vec()),
        body in prop::collection::vec(any::<u8>(), 0..1200),
    ) {
        if let Ok(frame) = Frame::decode(kind, &body) {
            let bytes = encoded(frame);
            prop_assert_eq!(bytes.len(), HEADER_LEN + frame.body_len());
            prop_assert_eq!(decoded(&bytes), Ok(frame));
        }
    }

    #[test]
    fn a_flipped_bit_never_panics(index in 0usize..16, bit in 0usize..800) {
        let mut bytes = encoded(samples()[index]);
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (head, body) = bytes.split_first_chunk().unwrap();
        if let Some(kind) = Kind::from_byte(Header::decode(head).kind) {
            let _ = Frame::decode(kind, body);
        }
    }
}
