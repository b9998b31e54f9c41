//! The public address according to the configured STUN servers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hearth_derp::stun;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::config::wan::StunServer;
use crate::shutdown::Shutdown;
use hearth_core::state::secret::random;
use hearth_core::wan::Addresses;

/// Time between two requests.
const REFRESH: Duration = Duration::from_secs(5 * 60);

/// Time between two requests after a failure.
const RETRY: Duration = Duration::from_secs(30);

/// Retransmission timeout. Source: RFC 5389 section 7.2.1.
const TRY: Duration = Duration::from_millis(500);

/// Transmissions of a request.
const TRIES: usize = 3;

/// Timeout of a DNS lookup.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest response, in bytes.
const ANSWER_MAX: usize = 512;

/// Asks at once, periodically, and when `again` is notified. The last responses remain until there are new ones.
pub(super) async fn keep_asking(
    servers: Vec<StunServer>,
    reported: watch::Sender<Addresses>,
    again: Arc<Notify>,
    shutdown: Shutdown,
) {
    loop {
        let answer = tokio::select! {
            () = shutdown.wait() => return,
            answer = ask_all(&servers) => answer,
        };
        if !answer.is_empty() {
            reported.send_if_modified(|known| {
                let is_other = *known != answer;
                *known = answer;
                is_other
            });
        }
        let pause = if answer.is_empty() { RETRY } else { REFRESH };
        tokio::select! {
            () = shutdown.wait() => return,
            () = again.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The first response of each family.
async fn ask_all(servers: &[StunServer]) -> Addresses {
    let mut found = Addresses::default();
    for server in servers {
        let lookup = tokio::net::lookup_host((server.host.as_str(), server.port));
        let Ok(Ok(addresses)) = timeout(LOOKUP_TIMEOUT, lookup).await else {
            tracing::debug!(%server, "the name of a STUN server does not resolve");
            continue;
        };
        for address in addresses.take(4) {
            let is_known = match address {
                SocketAddr::V4(_) => found.v4.is_some(),
                SocketAddr::V6(_) => found.v6.is_some(),
            };
            if is_known {
                continue;
            }
            match ask(address).await {
                Some(IpAddr::V4(v4)) => found.v4 = Some(v4),
                Some(IpAddr::V6(v6)) => found.v6 = Some(v6),
                None => tracing::debug!(%server, %address, "no response from a STUN server"),
            }
        }
        if found.v4.is_some() && found.v6.is_some() {
            break;
        }
    }
    found
}

/// The public address according to one server.
pub(in crate::server) async fn ask(server: SocketAddr) -> Option<IpAddr> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
    };
    let socket = UdpSocket::bind(any).await.ok()?;
    // Packets from others are not received.
    socket.connect(server).await.ok()?;
    let transaction: [u8; 12] = random().ok()?;
    let request = stun::request(&transaction);
    let mut buffer = [0; ANSWER_MAX];
    for _ in 0..TRIES {
        socket.send(&request).await.ok()?;
        let answer = timeout(TRY, async {
            loop {
                let length = socket.recv(&mut buffer).await.ok()?;
                let packet = buffer.get(..length).unwrap_or_default();
                if let Some(address) = stun::mapped_address(packet, &transaction) {
                    return Some(address.ip());
                }
            }
        });
        if let Ok(answer) = answer.await {
            return answer;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lost_request_is_sent_again() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let serving = async {
            let mut packet = [0; 256];
            let mut out = [0; stun::RESPONSE_MAX_LEN];
            server.recv_from(&mut packet).await.unwrap();
            let (length, from) = server.recv_from(&mut packet).await.unwrap();
            let seen = SocketAddr::from(([203, 0, 113, 5], 40_000));
            // A forged response, which is skipped, and the right one.
            server.send_to(&[0; 44], from).await.unwrap();
            let length = stun::respond(&packet[..length], seen, &mut out).unwrap();
            server.send_to(&out[..length], from).await.unwrap();
        };
        let servers = [StunServer {
            host: address.ip().to_string(),
            port: address.port(),
        }];
        let ((), found) = tokio::join!(serving, ask_all(&servers));
        assert_eq!(found.v4, Some([203, 0, 113, 5].into()));
        assert_eq!(found.v6, None);
    }
}
