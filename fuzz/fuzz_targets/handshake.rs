//! The login of a relay client: any body is refused or proves its key, and so does any text inside a
//! box that is right.
#![no_main]

use std::sync::Arc;

use hearth_derp::ServerSecret;
use hearth_derp::handshake::{Greeting, ServerInfo};
use hearth_derp::nacl::SharedKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let server = Arc::new(ServerSecret::from_bytes([2; 32]));
    let greeting = Greeting::new(server.clone());
    let Some((mode, rest)) = input.split_first() else {
        return;
    };
    if mode % 2 == 0 {
        let _ = greeting.client_info(rest);
        return;
    }
    let client = ServerSecret::from_bytes([1; 32]);
    let shared = SharedKey::new(&client, &server.public());
    let sealed = shared.seal(&[3; 24], rest).unwrap();
    let body = [client.public().as_bytes(), sealed.as_slice()].concat();
    let Ok(proven) = greeting.client_info(&body) else {
        return;
    };
    assert_eq!(proven.key, client.public());
    let mut out = Vec::new();
    proven
        .server_info(&ServerInfo::default(), &[4; 24], &mut out)
        .unwrap();
    assert!(shared.open(&out[5..]).is_ok());
});
