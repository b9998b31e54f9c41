//! STUN responder over a tokio UDP socket.

use std::future::Future;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::stats::count;
use crate::stun::{REQUEST_MAX_LEN, RESPONSE_MAX_LEN, respond};
use hearth_shares::{Sketch, Source};

/// Pause after a failed receive, so that a permanent error does not use all CPU time.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Counters of the responder since its start; they wrap around. Source: metrics of `stunserver`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StunStats {
    /// Responses to IPv4 sources, including IPv4-mapped ones.
    pub answered_ipv4: u64,
    /// Responses to IPv6 sources.
    pub answered_ipv6: u64,
    /// Packets that are not a valid request.
    pub ignored: u64,
    /// Valid requests that were rate-limited.
    pub limited: u64,
    /// Failed receives.
    pub read_errors: u64,
    /// Responses that could not be sent at once. They are dropped; the client retries.
    pub write_errors: u64,
}

/// Shared counters of the responder.
#[derive(Clone, Debug, Default)]
pub struct StunCounters(Arc<Mutex<StunStats>>);

impl StunCounters {
    /// The current counters.
    pub fn stats(&self) -> StunStats {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, field: impl FnOnce(&mut StunStats) -> &mut u64) {
        count(field(
            &mut self.0.lock().unwrap_or_else(PoisonError::into_inner),
        ));
    }
}

/// Public IPv4 address for responses to private sources, which may change while the responder runs. Clones share it.
///
/// Packets of LAN clients do not pass the router's NAT, so their own address would be useless to remote peers.
#[derive(Clone, Debug, Default)]
pub struct AddressForLan(Arc<Mutex<Option<Ipv4Addr>>>);

impl AddressForLan {
    /// Sets the address; `None` answers all sources with their own.
    pub fn set(&self, address: Option<Ipv4Addr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    fn get(&self) -> Option<Ipv4Addr> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Options of the responder.
#[derive(Clone, Debug, Default)]
pub struct StunOptions {
    /// Responses per second to one IPv4 address or IPv6 /64, behind which may be a whole home, and four
    /// times as many to one IPv6 /48; 0 is no limit. Sources can be forged: see [`Sketch`].
    pub answers_per_second: u32,
    /// Public address for responses to private sources.
    pub for_lan: AddressForLan,
}

impl StunOptions {
    /// The address in the response to a source.
    fn address_for(&self, source: SocketAddr) -> SocketAddr {
        let is_private =
            matches!(source.ip().to_canonical(), IpAddr::V4(address) if address.is_private());
        match self.for_lan.get().filter(|_| is_private) {
            Some(public) => SocketAddr::new(public.into(), source.port()),
            None => source,
        }
    }
}

/// Responds to STUN requests until `shutdown` resolves. One dual-stack socket serves both address
/// families. Responses are not queued: they are sent at once or dropped.
///
/// Cancel safe: dropping the future loses at most one request.
pub async fn serve(
    socket: &UdpSocket,
    counters: &StunCounters,
    options: StunOptions,
    shutdown: impl Future<Output = ()>,
) {
    let most = options.answers_per_second;
    let (start, mut rate) = (Instant::now(), (most > 0).then(|| Sketch::new(most)));
    let mut shutdown = pin!(shutdown);
    // One byte more than the longest request, so that a longer one is not truncated to a valid one.
    let mut packet = [0; REQUEST_MAX_LEN.saturating_add(1)];
    let mut response = [0; RESPONSE_MAX_LEN];
    loop {
        let received = tokio::select! {
            biased;
            () = &mut shutdown => return,
            received = socket.recv_from(&mut packet) => received,
        };
        let Ok((length, source)) = received else {
            counters.change(|stats| &mut stats.read_errors);
            tokio::select! {
                () = &mut shutdown => return,
                () = tokio::time::sleep(ERROR_PAUSE) => continue,
            }
        };
        let request = packet.get(..length).unwrap_or_default();
        let Some(answer) = respond(request, options.address_for(source), &mut response)
            .and_then(|length| response.get(..length))
        else {
            counters.change(|stats| &mut stats.ignored);
            continue;
        };
        let from = Source::of(source.ip());
        if rate
            .as_mut()
            .is_some_and(|rate| !rate.take(from, start.elapsed()))
        {
            counters.change(|stats| &mut stats.limited);
            continue;
        }
        match socket.try_send_to(answer, source) {
            Ok(_) if source.ip().to_canonical().is_ipv4() => {
                counters.change(|stats| &mut stats.answered_ipv4)
            }
            Ok(_) => counters.change(|stats| &mut stats.answered_ipv6),
            Err(error) => {
                if error.kind() != ErrorKind::WouldBlock {
                    tracing::debug!(%source, %error, "could not send a STUN response");
                }
                counters.change(|stats| &mut stats.write_errors);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    /// Runs the responder on a socket bound to `address` while `client` talks to it.
    async fn with_responder<F>(address: &str, client: impl FnOnce(SocketAddr) -> F) -> StunStats
    where
        F: Future<Output = ()>,
    {
        let socket = UdpSocket::bind(address).await.unwrap();
        let at = socket.local_addr().unwrap();
        let counters = StunCounters::default();
        let patience = tokio::time::timeout(Duration::from_secs(20), client(at));
        let options = StunOptions {
            answers_per_second: 5,
            for_lan: AddressForLan::default(),
        };
        serve(&socket, &counters, options, async {
            patience.await.unwrap()
        })
        .await;
        counters.stats()
    }

    async fn ask(from: &UdpSocket, at: SocketAddr) -> Vec<u8> {
        let request =
            "000100142112a442000102030405060708090a0b802200087461696c6e6f6465802800048aabad90";
        from.send_to(&hex(request), at).await.unwrap();
        let mut answer = vec![0; 100];
        let (length, source) = from.recv_from(&mut answer).await.unwrap();
        assert_eq!(source, at);
        answer.truncate(length);
        answer
    }

    #[tokio::test]
    async fn valid_request_gets_a_response_and_junk_does_not() {
        let stats = with_responder("127.0.0.1:0", |at| async move {
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            for junk in [&b""[..], b"junk", &[0; 1500]] {
                client.send_to(junk, at).await.unwrap();
            }
            let answer = ask(&client, at).await;
            assert_eq!(answer.len(), 32);
            let port = client.local_addr().unwrap().port() ^ 0x2112;
            assert_eq!(answer[26..28], port.to_be_bytes());
        })
        .await;
        assert_eq!((stats.answered_ipv4, stats.ignored), (1, 3));
    }

    #[tokio::test]
    async fn source_with_too_many_requests_is_rate_limited() {
        let stats = with_responder("127.0.0.1:0", |at| async move {
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            for _ in 0..5 {
                ask(&client, at).await;
            }
            let impatient = tokio::time::timeout(Duration::from_millis(50), ask(&client, at));
            assert!(impatient.await.is_err());
            tokio::time::sleep(Duration::from_secs(1)).await;
            ask(&client, at).await;
        })
        .await;
        assert_eq!((stats.answered_ipv4, stats.limited), (6, 1));
    }

    #[test]
    fn private_sources_get_the_public_address() {
        let options = StunOptions::default();
        let private: SocketAddr = "192.168.1.5:41641".parse().unwrap();
        assert_eq!(options.address_for(private), private);
        let shared = options.for_lan.clone();
        shared.set(Some(Ipv4Addr::new(203, 0, 113, 1)));
        for (source, expected) in [
            ("192.168.1.5:41641", "203.0.113.1:41641"),
            ("[::ffff:10.0.0.1]:1", "203.0.113.1:1"),
            ("198.51.100.7:9", "198.51.100.7:9"),
            ("[2001:db8::1]:9", "[2001:db8::1]:9"),
        ] {
            let (source, expected): (SocketAddr, SocketAddr) =
                (source.parse().unwrap(), expected.parse().unwrap());
            assert_eq!(options.address_for(source), expected);
        }
    }

    #[tokio::test]
    async fn ipv4_client_of_a_dual_stack_socket_gets_the_ipv4_form() {
        if UdpSocket::bind("[::]:0").await.is_err() {
            // This machine has no IPv6.
            return;
        }
        let stats = with_responder("[::]:0", |at| async move {
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let answer = ask(&client, SocketAddr::from(([127, 0, 0, 1], at.port()))).await;
            assert_eq!(answer.len(), 32);
        })
        .await;
        assert_eq!((stats.answered_ipv4, stats.answered_ipv6), (1, 0));
    }
}
