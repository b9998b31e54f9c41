//! WebSocket frames of a client, cut anywhere: the same message bytes come out, never more than went in.
#![no_main]

use hearth_derp::websocket::Decoder;
use libfuzzer_sys::fuzz_target;

/// The message bytes, or none if the frames are refused.
fn decoded(parts: &[&[u8]]) -> Option<Vec<u8>> {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    for part in parts {
        let mut bytes = part.to_vec();
        let kept = decoder.decode(&mut bytes).ok()?;
        messages.extend_from_slice(&bytes[..kept]);
        let _ = decoder.take_control();
    }
    Some(messages)
}

fuzz_target!(|input: &[u8]| {
    let Some((&[c0, c1], frames)) = input.split_first_chunk() else {
        return;
    };
    let cut = usize::from(u16::from_be_bytes([c0, c1])) % (frames.len() + 1);
    let (early, late) = frames.split_at(cut);
    let whole = decoded(&[frames]);
    assert!(whole.as_ref().is_none_or(|bytes| bytes.len() <= frames.len()));
    assert_eq!(whole, decoded(&[early, late]), "cut at {cut}");
});
