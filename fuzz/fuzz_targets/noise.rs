//! The encrypted transport of the control protocol: any handshake message, any records, and what is
//! sealed opens again and no bit of it can change.
#![no_main]

use hearth_core::keys::MachineSecret;
use hearth_core::noise::handshake::{INITIATION_BYTES, respond};
use hearth_core::noise::record::{Open, Seal, frame_bytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((mode, rest)) = input.split_first() else {
        return;
    };
    match mode % 3 {
        0 => {
            let mut initiation = rest.to_vec();
            if mode & 0x80 != 0 {
                initiation.resize(INITIATION_BYTES, 0);
                initiation[2..5].copy_from_slice(&[1, 0, 96]);
            }
            let secret = MachineSecret::from_bytes([0x11; 32]);
            // Nobody guesses a message that decrypts.
            let fault = respond(&secret, &initiation).unwrap_err();
            assert!(
                fault.frame().is_none() || initiation.len() != INITIATION_BYTES || mode & 0x80 == 0
            );
        }
        1 => {
            let mut open = Open::new(&[7; 32]);
            let mut rest = rest;
            while let Ok(Some(length)) = frame_bytes(rest) {
                let Some((frame, next)) = rest.split_at_checked(length) else {
                    break;
                };
                assert!(open.open(&mut frame.to_vec()).is_err());
                rest = next;
            }
        }
        _ => {
            let (mut seal, mut open) = (Seal::new(&[7; 32]), Open::new(&[7; 32]));
            for (number, text) in rest.chunks(usize::from(*mode) * 40 + 1).enumerate() {
                let mut frame = Vec::new();
                let taken = seal.seal(text, &mut frame).unwrap();
                assert_eq!(frame_bytes(&frame), Ok(Some(frame.len())));
                if number == 3 {
                    let place = usize::from(text[0]) % frame.len();
                    frame[place] ^= 1 << (mode % 8);
                    assert!(open.open(&mut frame).is_err());
                    return;
                }
                assert_eq!(open.open(&mut frame).unwrap(), &text[..taken]);
            }
        }
    }
});
