//! Open relay over plain TCP: `cargo run -p hearth-derp --example relay --
//! 127.0.0.1:3340`.
//!
//! Shows how a host program passes connections to the relay. A real one has a timeout for the HTTP
//! request and admits only known clients.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hearth_derp::relay::Relay;
use hearth_derp::{Limits, ServerSecret, headers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:3340".to_owned());
    let relay = Relay::new(
        ServerSecret::generate()?,
        Limits {
            connections: 16_384,
            ..Limits::default()
        },
        Arc::new(|_: &_, _| true),
    );
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    let mut connections = JoinSet::new();
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, source) = accepted?;
                let relay = relay.clone();
                connections.spawn(async move {
                    match upgrade(stream, &relay).await {
                        Ok((stream, rest)) => println!("{source}: {}", relay.serve(stream, rest, source).await),
                        Err(error) => println!("{source}: no upgrade: {error}"),
                    }
                });
            }
            Some(_) = connections.join_next() => {}
            _ = &mut interrupt => break,
        }
    }
    relay.shutdown(
        std::time::Duration::from_secs(1),
        std::time::Duration::from_secs(30),
    );
    while connections.join_next().await.is_some() {}
    println!("{:?}", relay.stats());
    Ok(())
}

/// Reads the head of the request and responds, unless the client wants a fast start.
async fn upgrade(mut stream: TcpStream, relay: &Relay) -> std::io::Result<(TcpStream, Bytes)> {
    stream.set_nodelay(true)?;
    let mut head = BytesMut::with_capacity(1024);
    let end = loop {
        if let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        if head.len() > 8192 || stream.read_buf(&mut head).await? == 0 {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    };
    let rest = head.split_off(end).freeze();
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let fast_start = format!(
        "\r\n{}: 1\r\n",
        headers::FAST_START_HEADER.to_ascii_lowercase()
    );
    if !head.contains(&fast_start) {
        stream
            .write_all(&headers::upgrade_response(&relay.public_key()))
            .await?;
    }
    Ok((stream, rest))
}
