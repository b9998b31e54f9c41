//! Joins a tailnet with the crate `tailscale`, waits until it sees a peer, and,
//! when asked to, exchanges bytes with the peer's echo service.
//!
//! `hearth-rust-client URL KEY NAME PEER [ECHO_PORT]` prints one line per success
//! and ends with a non-zero code at the first failure.

use std::error::Error;
use std::time::Duration;

use tailscale::{AuthState, Config, Device};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};
// Named for its feature only, see Cargo.toml.
use ts_control as _;

const PATIENCE: Duration = Duration::from_secs(40);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, key, name, peer, rest @ ..] = arguments.as_slice() else {
        return Err("usage: hearth-rust-client URL KEY NAME PEER [ECHO_PORT]".into());
    };

    let config = Config {
        control_server_url: url.parse()?,
        requested_hostname: Some(name.clone()),
        ..Default::default()
    };
    let device = timeout(PATIENCE, Device::new(&config, Some(key.clone()))).await??;
    match timeout(PATIENCE, device.is_authorized()).await?? {
        AuthState::Authorized => {}
        AuthState::NotAuthorized(url) => return Err(format!("asked to log in at {url}").into()),
    }
    let own = timeout(PATIENCE, device.ipv4_addr()).await??;
    println!("joined as {own}");

    let found = timeout(PATIENCE, async {
        loop {
            if let Some(found) = device.peer_by_name(peer).await? {
                return Ok::<_, tailscale::Error>(found);
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await??;
    let address = found.tailnet_address.ipv4.addr();
    println!("sees {peer} at {address}");

    if let [port] = rest {
        let remote = (address, port.parse()?).into();
        timeout(PATIENCE, exchange(&device, remote)).await??;
        println!("exchanged bytes with {peer}");
    }
    device.shutdown(Some(Duration::from_secs(5))).await;
    Ok(())
}

/// Sends bytes to an echo service and compares what comes back.
async fn exchange(device: &Device, remote: std::net::SocketAddr) -> Result<(), Box<dyn Error>> {
    let mut stream = device.tcp_connect(remote).await?;
    let sent: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
    stream.write_all(&sent).await?;
    stream.flush().await?;
    let mut received = vec![0; sent.len()];
    stream.read_exact(&mut received).await?;
    if sent != received {
        return Err("other bytes came back than were sent".into());
    }
    Ok(())
}
