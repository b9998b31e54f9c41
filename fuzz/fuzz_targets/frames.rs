//! Any bytes, read as DERP frames: what decodes says its own length and survives a second trip.
#![no_main]

use hearth_derp::frame::{Frame, HEADER_LEN, Header, Kind};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    while let Some((head, after)) = rest.split_first_chunk::<HEADER_LEN>() {
        let header = Header::decode(head);
        // Bodies are cut at the end of the input, so that most inputs have some.
        let length = usize::try_from(header.length)
            .unwrap_or(usize::MAX)
            .min(after.len());
        let (body, next) = after.split_at(length);
        rest = next;
        let Some(kind) = Kind::from_byte(header.kind) else {
            continue;
        };
        assert_eq!(kind.to_byte(), header.kind);
        let Ok(frame) = Frame::decode(kind, body) else {
            continue;
        };
        assert!(kind.check_len(u32::try_from(body.len()).unwrap()).is_ok());
        assert_eq!(frame.kind(), kind);
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert_eq!(bytes.len(), HEADER_LEN + frame.body_len());
        assert_eq!(Frame::decode(kind, &bytes[HEADER_LEN..]), Ok(frame));
    }
});
