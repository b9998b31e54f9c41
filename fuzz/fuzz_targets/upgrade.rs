//! The plain HTTP part of a connection, up to its upgrade: any bytes, and where they are cut makes no
//! difference to what becomes of them.
#![no_main]

use std::future::ready;
use std::sync::Mutex;

use hearth::control::ts2021::{self, ControlUpgrade};
use hearth::net::body;
use hearth::net::http1::{Http1End, serve};
use hearth::net::limits::Limits;
use hearth::net::upgrade::{PendingResponse, Upgrade};
use hearth::relay::http::{self as derp, RelayUpgrade};
use hearth::shutdown::Shutdown;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::runtime::Builder;

/// What a connection is upgraded to.
#[derive(Debug, Clone, PartialEq)]
enum Asked {
    Control(ControlUpgrade),
    Relay(RelayUpgrade),
}

/// What a connection is upgraded to, with what followed the request. Whether it just ends or ends
/// with an error is not compared: for a broken request the HTTP library decides that by what came
/// before it.
type Fate = Option<(Asked, Vec<u8>)>;

fn nothing() -> Upgrade {
    Upgrade::new("fuzz", |_, _, _| Box::pin(ready(())))
}

fn fate(parts: [&[u8]; 2]) -> Fate {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (client, server) = duplex(1 << 20);
        let (mut answers, mut requests) = tokio::io::split(client);
        let limits = Limits::default();
        let shutdown = Shutdown::new();
        let last = Mutex::new(None);
        let note = |asked: Asked| {
            *last.lock().unwrap() = Some(asked);
            nothing()
        };
        let answer = |request: Request<Incoming>| -> PendingResponse {
            let (head, _) = request.into_parts();
            let key = hearth_derp::Key::from([7; 32]);
            Box::pin(ready(match head.uri.path() {
                derp::PATH => derp::upgrade(&head, &key, |asked| note(Asked::Relay(asked))),
                ts2021::PATH => ts2021::upgrade(&head, |asked| note(Asked::Control(asked))),
                _ => body::status(StatusCode::OK),
            }))
        };
        let fast_start = |path: &str, header: &dyn Fn(&str) -> Vec<u8>| {
            derp::fast_start(path, header).map(|asked| note(Asked::Relay(asked)))
        };
        let serve = async {
            match serve(server, &limits, &shutdown, &answer, &fast_start).await {
                Ok(Http1End::Closed) | Err(_) => None,
                Ok(Http1End::Upgraded {
                    mut stream,
                    received,
                    ..
                }) => {
                    let mut following = received.to_vec();
                    let _ = stream.read_to_end(&mut following).await;
                    let asked = last.lock().unwrap().take();
                    asked.map(|asked| (asked, following))
                }
            }
        };
        let talk = async {
            for part in parts {
                let _ = requests.write_all(part).await;
                for _ in 0..4 {
                    tokio::task::yield_now().await;
                }
            }
            let _ = requests.shutdown().await;
            // Not compared: whether the HTTP library answers a broken request or just closes depends on
            // what came with it.
            let _ = answers.read_to_end(&mut Vec::new()).await;
        };
        tokio::join!(serve, talk).0
    })
}

fuzz_target!(|input: &[u8]| {
    let Some((&[c0, c1], bytes)) = input.split_first_chunk() else {
        return;
    };
    if bytes.len() > 12 << 10 {
        return;
    }
    let cut = usize::from(u16::from_be_bytes([c0, c1])) % (bytes.len() + 1);
    let (early, late) = bytes.split_at(cut);
    let whole = fate([bytes, &[]]);
    if let Some((_, following)) = &whole {
        assert!(bytes.ends_with(following));
    }
    let parted = fate([early, late]);
    assert_eq!(whole, parted, "cut at {cut}");
});
