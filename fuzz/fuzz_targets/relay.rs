//! A whole relay under virtual time with four clients that do anything in any order: send right or
//! broken frames in pieces, read or stop reading, vanish and come back. The pool keeps its bound, and
//! when all are gone nothing of them is left.
#![no_main]

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hearth_derp::frame::{Frame, Kind};
use hearth_derp::nacl::SharedKey;
use hearth_derp::relay::Relay;
use hearth_derp::{Key, Limits, ServerSecret};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local, yield_now};

const CLIENTS: usize = 4;

/// Keys of the clients and their `ClientInfo` frames. The last two share a key.
static LOGINS: LazyLock<Vec<(Key, Vec<u8>)>> = LazyLock::new(|| {
    let server = server().public();
    let login = |mark: u8| {
        let client = ServerSecret::from_bytes([mark; 32]);
        let text = br#"{"version":2,"CanAckPings":true}"#;
        let sealed = SharedKey::new(&client, &server).seal(&[3; 24], text).unwrap();
        let body = [client.public().as_bytes(), sealed.as_slice()].concat();
        let mut frame = Vec::new();
        Frame::decode(Kind::ClientInfo, &body)
            .unwrap()
            .encode(&mut frame);
        (client.public(), frame)
    };
    [10, 11, 12, 12].map(login).to_vec()
});

fn server() -> ServerSecret {
    ServerSecret::from_bytes([2; 32])
}

fn limits() -> Limits {
    Limits {
        connections: CLIENTS,
        logins: 2,
        client_info_bytes: 1 << 10,
        queue_slots: 4,
        data_queue_bytes: 8 << 10,
        disco_queue_bytes: 1 << 10,
        pool_bytes: 64 << 10,
        partial_bytes: 256,
        ..Limits::default()
    }
}

/// The instructions that the input is read as.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, most: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// One poll, so that a full pipe does not stop the script.
async fn attempt<F: Future>(future: F) {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        let _ = future.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}

async fn settle() {
    for _ in 0..8 {
        yield_now().await;
    }
}

async fn play(relay: &Relay, mut script: Script<'_>) -> Option<()> {
    let mut clients: [Option<DuplexStream>; CLIENTS] = Default::default();
    let address: std::net::SocketAddr = "192.0.2.1:1".parse().unwrap();
    loop {
        let instruction = script.byte()?;
        let who = usize::from(instruction >> 6);
        let (_, login) = LOGINS.get(who)?;
        let slot = clients.get_mut(who)?;
        let Some(client) = slot else {
            let (ours, theirs) = duplex(4 << 10);
            let relay = relay.clone();
            spawn_local(async move {
                let early = Bytes::new();
                let _ = relay.serve(theirs, early, address).await;
            });
            let client = slot.insert(ours);
            if instruction & 0x3f != 0 {
                attempt(client.write_all(login)).await;
            }
            settle().await;
            continue;
        };
        match instruction & 0x0f {
            0 => *slot = None,
            1 => {
                let mut sink = [0; 2048];
                attempt(client.read(&mut sink)).await;
            }
            2 => {
                let seconds = u64::from(script.byte()?);
                tokio::time::advance(Duration::from_millis(seconds * 100)).await;
            }
            3..=5 => {
                let length = usize::from(script.byte()?);
                attempt(client.write_all(script.bytes(length))).await;
            }
            6 => {
                let key = LOGINS.get(usize::from(script.byte()?) % CLIENTS)?.0;
                relay.disconnect(&key);
            }
            7 => {
                let restart = Duration::from_millis(100);
                relay.shutdown(restart, restart);
            }
            _ => {
                let to = script.byte()?;
                let length = usize::from(script.byte()?) << (to >> 5);
                let mut packet = vec![to; length];
                let magic = b"TS\xf0\x9f\x92\xac";
                if to & 0x10 != 0 && length >= magic.len() {
                    packet[..magic.len()].copy_from_slice(magic);
                }
                let mut frame = Vec::new();
                Frame::SendPacket {
                    destination: LOGINS.get(usize::from(to) % CLIENTS)?.0,
                    packet: &packet,
                }
                .encode(&mut frame);
                attempt(client.write_all(&frame)).await;
            }
        }
        settle().await;
        assert!(relay.stats().pool_bytes_used <= limits().pool_bytes);
    }
}

thread_local! {
    static RUNTIME: RefCell<tokio::runtime::Runtime> = RefCell::new(
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap(),
    );
}

fuzz_target!(|input: &[u8]| {
    RUNTIME.with_borrow(|runtime| {
        let tasks = LocalSet::new();
        let relay = Relay::new(server(), limits(), Arc::new(|_: &Key, _| true));
        tasks.block_on(runtime, async {
            play(&relay, Script(input)).await;
            settle().await;
        });
        // All clients are dropped now; their connections end by themselves.
        runtime.block_on(async {
            let ended = tokio::time::timeout(Duration::from_secs(60), tasks);
            assert!(ended.await.is_ok(), "a connection outlives its client");
        });
        let stats = relay.stats();
        assert_eq!((stats.connections, stats.logins, stats.keys), (0, 0, 0));
        assert_eq!(stats.pool_bytes_used, 0);
    });
});
