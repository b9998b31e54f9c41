//! The server's half of the Noise IK handshake: one message in, one message out.
//!
//! The client's protocol version is part of the prologue, so a tampered version makes the handshake fail. No other module names the Noise library.
//! Source: tailscale `control/controlbase/{handshake,messages}.go`.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::keys::{KEY_BYTES, MachineKey, MachineSecret};
use crate::noise::record::{Open, Seal};

/// Bytes of the client's message: header, ephemeral key, encrypted machine key, tag.
/// Source: `initiationMessage` in tailscale `control/controlbase/messages.go`.
pub const INITIATION_BYTES: usize = 101;

/// Bytes of the server's message: header, ephemeral key, tag.
/// Source: `responseMessage` in tailscale `control/controlbase/messages.go`.
pub const RESPONSE_BYTES: usize = 51;

const INITIATION_HEADER_BYTES: usize = 5;
const INITIATION_PAYLOAD_BYTES: u16 = 96;
const RESPONSE_PAYLOAD_BYTES: u16 = 48;
const TYPE_INITIATION: u8 = 1;
const TYPE_RESPONSE: u8 = 2;
const TYPE_ERROR: u8 = 3;

/// Source: `protocolName` in tailscale `control/controlbase/handshake.go`.
const PROTOCOL_NAME: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
/// Source: `protocolVersionPrefix` in tailscale `control/controlbase/handshake.go`.
const PROLOGUE_PREFIX: &str = "Tailscale Control Protocol v";

/// A finished handshake.
#[derive(Debug)]
pub struct Accepted {
    /// The client's capability version; authenticated, because it is part of the prologue.
    pub version: u16,
    /// The client's machine key; authenticated.
    pub peer: MachineKey,
    /// The response to send first.
    pub response: [u8; RESPONSE_BYTES],
    /// Encrypts what the server sends.
    pub seal: Seal,
    /// Decrypts what the client sends.
    pub open: Open,
}

/// Why a client's message was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The message is not 101 bytes long.
    #[error("wrong handshake initiation size")]
    Size,
    /// The message is not an initiation.
    #[error("unexpected handshake message type")]
    Type,
    /// The header announces another length than the message has.
    #[error("wrong handshake initiation length")]
    Length,
    /// The message is for another server key, was tampered with, or has a key of low order.
    #[error("handshake initiation does not decrypt")]
    Decrypt,
    /// The system returned no random bytes.
    #[error("no randomness for the handshake")]
    Randomness,
}

impl HandshakeError {
    /// The error frame that the reference sends for this error; `None` for cryptographic errors.
    pub fn frame(self) -> Option<Vec<u8>> {
        match self {
            Self::Size | Self::Type | Self::Length => Some(error_frame(&self.to_string())),
            Self::Decrypt | Self::Randomness => None,
        }
    }
}

/// A frame with the reason of a failed handshake. Not authenticated; only valid instead of a response.
///
/// A text longer than 65535 bytes is left out.
/// Source: `msgTypeError` in tailscale `control/controlbase/messages.go`.
pub fn error_frame(text: &str) -> Vec<u8> {
    let (length, text) = match u16::try_from(text.len()) {
        Ok(length) => (length, text),
        Err(_) => (0, ""),
    };
    [&[TYPE_ERROR], &length.to_be_bytes()[..], text.as_bytes()].concat()
}

/// Responds to a client's handshake message. Costs three Diffie-Hellman computations and one new key.
///
/// # Errors
/// [`HandshakeError`]; close the connection.
pub fn respond(secret: &MachineSecret, initiation: &[u8]) -> Result<Accepted, HandshakeError> {
    respond_with(secret, initiation, None)
}

fn respond_with(
    secret: &MachineSecret,
    initiation: &[u8],
    ephemeral: Option<&[u8; KEY_BYTES]>,
) -> Result<Accepted, HandshakeError> {
    if initiation.len() != INITIATION_BYTES {
        return Err(HandshakeError::Size);
    }
    let Some((&[v0, v1, message_type, l0, l1], payload)) =
        initiation.split_first_chunk::<INITIATION_HEADER_BYTES>()
    else {
        return Err(HandshakeError::Size);
    };
    if message_type != TYPE_INITIATION {
        return Err(HandshakeError::Type);
    }
    if u16::from_be_bytes([l0, l1]) != INITIATION_PAYLOAD_BYTES {
        return Err(HandshakeError::Length);
    }
    let version = u16::from_be_bytes([v0, v1]);

    let secret = secret.to_bytes();
    let prologue = format!("{PROLOGUE_PREFIX}{version}");
    let mut builder = builder()?
        .local_private_key(secret.as_slice())
        .and_then(|builder| builder.prologue(prologue.as_bytes()))
        .map_err(fault)?;
    if let Some(ephemeral) = ephemeral {
        builder = builder.fixed_ephemeral_key_for_testing_only(ephemeral);
    }
    let mut noise = builder.build_responder().map_err(fault)?;

    let mut scratch = [0; INITIATION_BYTES];
    noise.read_message(payload, &mut scratch).map_err(fault)?;
    let peer = noise
        .get_remote_static()
        .and_then(|key| <[u8; KEY_BYTES]>::try_from(key).ok())
        .map(MachineKey::from_bytes)
        .ok_or(HandshakeError::Decrypt)?;

    let mut response = [0; RESPONSE_BYTES];
    let (header, body) = response.split_at_mut(3);
    let [l0, l1] = RESPONSE_PAYLOAD_BYTES.to_be_bytes();
    header.copy_from_slice(&[TYPE_RESPONSE, l0, l1]);
    noise.write_message(&[], body).map_err(fault)?;

    // Record nonces have the other byte order than the library's transport, so only the keys are used.
    let (from_client, from_server) = noise.dangerously_get_raw_split();
    Ok(Accepted {
        version,
        peer,
        response,
        seal: Seal::new(&Zeroizing::new(from_server)),
        open: Open::new(&Zeroizing::new(from_client)),
    })
}

fn builder<'a>() -> Result<snow::Builder<'a>, HandshakeError> {
    let parameters = PROTOCOL_NAME.parse().map_err(fault)?;
    Ok(snow::Builder::with_resolver(parameters, Box::new(Resolver)))
}

fn fault(error: snow::Error) -> HandshakeError {
    match error {
        snow::Error::Rng => HandshakeError::Randomness,
        _ => HandshakeError::Decrypt,
    }
}

/// The library's cryptography, but with a Diffie-Hellman that rejects points of low order and wipes its key.
struct Resolver;

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        DefaultResolver.resolve_rng()
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519)
            .then(|| Box::new(Agreement::default()) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        // Named explicitly, so that no other hash is linked in.
        matches!(choice, HashChoice::Blake2s)
            .then(|| DefaultResolver.resolve_hash(&HashChoice::Blake2s))
            .flatten()
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly)
            .then(|| DefaultResolver.resolve_cipher(&CipherChoice::ChaChaPoly))
            .flatten()
    }
}

/// X25519 that fails if the result does not depend on both keys, as Go's does: otherwise anybody
/// could authenticate as the all-zero machine key.
#[derive(Default)]
struct Agreement {
    secret: Option<StaticSecret>,
    public: [u8; KEY_BYTES],
}

impl Agreement {
    fn install(&mut self, bytes: [u8; KEY_BYTES]) {
        let secret = StaticSecret::from(bytes);
        self.public = PublicKey::from(&secret).to_bytes();
        self.secret = Some(secret);
    }
}

impl Dh for Agreement {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_BYTES
    }

    fn priv_len(&self) -> usize {
        KEY_BYTES
    }

    fn set(&mut self, secret: &[u8]) {
        if let Ok(bytes) = <[u8; KEY_BYTES]>::try_from(secret) {
            self.install(bytes);
        }
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), snow::Error> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        random.try_fill_bytes(bytes.as_mut_slice())?;
        self.install(*bytes);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.secret
            .as_ref()
            .map(|secret| secret.as_bytes().as_slice())
            .unwrap_or_default()
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let public = public
            .get(..KEY_BYTES)
            .and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok())
            .ok_or(snow::Error::Dh)?;
        let secret = self.secret.as_ref().ok_or(snow::Error::Dh)?;
        let shared = secret.diffie_hellman(&PublicKey::from(public));
        if !shared.was_contributory() {
            return Err(snow::Error::Dh);
        }
        let out = out.get_mut(..KEY_BYTES).ok_or(snow::Error::Dh)?;
        out.copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

#[cfg(any(test, feature = "testing"))]
#[allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "fixtures of tests"
)]
pub mod testing {
    //! The client's half of the handshake, for the tests of this and other modules.

    use super::*;

    /// A client that has sent its initiation and waits for the response.
    pub struct Initiator {
        noise: snow::HandshakeState,
        pub initiation: Vec<u8>,
    }

    impl Initiator {
        pub fn new(secret: &MachineSecret, server: MachineKey, version: u16) -> Self {
            let secret = secret.to_bytes();
            let prologue = format!("{PROLOGUE_PREFIX}{version}");
            let mut noise = builder()
                .unwrap()
                .local_private_key(secret.as_slice())
                .unwrap()
                .remote_public_key(server.as_bytes())
                .unwrap()
                .prologue(prologue.as_bytes())
                .unwrap()
                .build_initiator()
                .unwrap();
            let mut payload = [0; 96];
            assert_eq!(noise.write_message(&[], &mut payload).unwrap(), 96);
            let [v0, v1] = version.to_be_bytes();
            let initiation = [&[v0, v1, 1, 0, 96], payload.as_slice()].concat();
            Self { noise, initiation }
        }

        pub fn finish(mut self, response: &[u8]) -> (Seal, Open) {
            assert_eq!(&response[..3], &[2, 0, 48]);
            self.noise
                .read_message(&response[3..], &mut [0; 64])
                .unwrap();
            let (from_client, from_server) = self.noise.dangerously_get_raw_split();
            (Seal::new(&from_client), Open::new(&from_server))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Initiator;
    use super::*;
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    fn unhex(text: &str) -> Vec<u8> {
        HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    fn server() -> MachineSecret {
        MachineSecret::from_bytes([0x11; 32])
    }

    /// Recorded from `controlbase.Client` and `controlbase.Server` of tailscale.com v1.102.5, with
    /// the fixed keys 11.. (server), 22.. (client), 33.. (server's ephemeral) and 44.. (client's).
    const INITIATION: &str = "0089010060ff2ee45601ec1b67310c7790404585ae697331eee1c1f8cf2419731c1fff3e6b99b043e7b583a167d9be715032da9e2927b7e2c9a753dcf4c93208099e873892e6405ccde519525f3e405c7617899c2e7691043ddfb47af8671ee11bb9d4eb65";
    const RESPONSE: &str = "0200307b0d47d93427f8311160781c7c733fd89f88970aef490d8aa0ee19a4cb8a1b1416d2c8e3a917f67630675034fb344a4f";
    const FROM_CLIENT: [(&str, &str); 4] = [
        ("zero", "04001465b47aa1cb3b7b7d51cdf2d3306c3d75e218f0f5"),
        ("one", "04001379b91c0cd369dcbdefae7c1438e09d65ec2355"),
        ("two", "0400139c5f56717ab62dfe9248ea5bb7ac5e7850bbe0"),
        ("three", "040015c1a35d7dafab4658ad94c73323e05ae078c3a45598"),
    ];
    const FROM_SERVER: [(&str, &str); 4] = [
        ("null", "040014807e116a789df593f7e066f433c43b4186650a1a"),
        ("eins", "040014e16e0ac19d10593fd0dda450bb089b4a027cba65"),
        ("zwei", "04001446b11f976a4b2fbb6ba813f998214fe96d3cca40"),
        ("drei", "040014f3539e518902aec87e73ba3d4cb18251f0889479"),
    ];

    #[test]
    fn conversation_is_byte_for_byte_that_of_the_reference() {
        let mut accepted = respond_with(&server(), &unhex(INITIATION), Some(&[0x33; 32])).unwrap();
        assert_eq!(accepted.version, 137);
        assert_eq!(
            accepted.peer,
            MachineSecret::from_bytes([0x22; 32]).public()
        );
        assert_eq!(HEXLOWER.encode(&accepted.response), RESPONSE);
        for (text, wire) in FROM_CLIENT {
            let mut frame = unhex(wire);
            assert_eq!(accepted.open.open(&mut frame).unwrap(), text.as_bytes());
        }
        for (text, wire) in FROM_SERVER {
            let mut frame = Vec::new();
            accepted.seal.seal(text.as_bytes(), &mut frame).unwrap();
            assert_eq!(HEXLOWER.encode(&frame), wire);
        }
    }

    #[test]
    fn every_truncation_is_refused_by_its_size() {
        let initiation = unhex(INITIATION);
        for length in 0..initiation.len() {
            let error = respond(&server(), &initiation[..length]).unwrap_err();
            assert_eq!(error, HandshakeError::Size);
        }
        let longer = [initiation.as_slice(), &[0]].concat();
        assert_eq!(
            respond(&server(), &longer).unwrap_err(),
            HandshakeError::Size
        );
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let good = unhex(INITIATION);
        for byte in 0..good.len() {
            for bit in [0_u8, 3, 7] {
                let mut bad = good.clone();
                bad[byte] ^= 1 << bit;
                // The top bit of the ephemeral key is ignored by X25519, but the transcript has it.
                assert!(respond(&server(), &bad).is_err(), "byte {byte} bit {bit}");
            }
        }
    }

    #[test]
    fn faults_of_form_are_told_and_faults_of_cryptography_are_not() {
        let mut wrong_type = unhex(INITIATION);
        wrong_type[2] = 2;
        let error = respond(&server(), &wrong_type).unwrap_err();
        let text = "unexpected handshake message type";
        let expected = [&[3, 0, 33], text.as_bytes()].concat();
        assert_eq!(error.frame(), Some(expected));
        let mut wrong_length = unhex(INITIATION);
        wrong_length[4] = 95;
        let error = respond(&server(), &wrong_length).unwrap_err();
        assert_eq!(error, HandshakeError::Length);
        let other = MachineSecret::from_bytes([0x12; 32]);
        let error = respond(&other, &unhex(INITIATION)).unwrap_err();
        assert_eq!((error, error.frame()), (HandshakeError::Decrypt, None));
    }

    #[test]
    fn keys_of_low_order_are_refused() {
        let mut initiation = unhex(INITIATION);
        initiation[5..37].fill(0);
        let error = respond(&server(), &initiation).unwrap_err();
        assert_eq!(error, HandshakeError::Decrypt);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn any_client_and_version_is_understood(
            secret: [u8; 32],
            version: u16,
            lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 3..8),
        ) {
            let secret = MachineSecret::from_bytes(secret);
            let client = Initiator::new(&secret, server().public(), version);
            let mut accepted = respond(&server(), &client.initiation).unwrap();
            prop_assert_eq!(accepted.version, version);
            prop_assert_eq!(accepted.peer, secret.public());
            let (mut seal, mut open) = client.finish(&accepted.response);
            for line in lines {
                let mut frame = Vec::new();
                seal.seal(&line, &mut frame).unwrap();
                prop_assert_eq!(&*accepted.open.open(&mut frame).unwrap(), line.as_slice());
                let mut frame = Vec::new();
                accepted.seal.seal(&line, &mut frame).unwrap();
                prop_assert_eq!(&*open.open(&mut frame).unwrap(), line.as_slice());
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..130)) {
            let _ = respond(&server(), &bytes);
        }
    }
}
