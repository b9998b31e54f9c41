//! The STUN responder over a tokio UDP socket.

use std::collections::HashMap;
use std::future::Future;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::address::source_prefix;
use crate::stats::count;
use crate::stun::{REQUEST_MAX_LEN, RESPONSE_MAX_LEN, respond};

/// Pause after a failed receive, so that an error that stays does not keep the processor busy.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// What the responder has done since the start; the numbers wrap around. Source: `stunserver`
/// metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StunStats {
    /// Answers to IPv4 sources, IPv4-mapped ones included.
    pub answered_ipv4: u64,
    /// Answers to IPv6 sources.
    pub answered_ipv6: u64,
    /// Packets that are no right request.
    pub ignored: u64,
    /// Right requests that were not answered because their source sent too many.
    pub limited: u64,
    /// Receives that failed.
    pub read_errors: u64,
    /// Answers that could not be sent at once; they are dropped, the client asks again.
    pub write_errors: u64,
}

/// Counters of the responder. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct StunCounters(Arc<Mutex<StunStats>>);

impl StunCounters {
    /// The numbers at this moment.
    pub fn stats(&self) -> StunStats {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, field: impl FnOnce(&mut StunStats) -> &mut u64) {
        count(field(
            &mut self.0.lock().unwrap_or_else(PoisonError::into_inner),
        ));
    }
}

/// How the responder answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StunOptions {
    /// Answers each second to one IPv4 address or IPv6 /64; 0 is no limit. A whole home may sit
    /// behind one.
    pub answers_per_second: u32,
    /// The address that sources at home are told instead of their own: their packets do not pass
    /// the router's address translation, so that their own is of no use to others.
    pub public_ipv4_for_lan: Option<Ipv4Addr>,
}

impl StunOptions {
    /// What a source is told.
    fn address_for(&self, source: SocketAddr) -> SocketAddr {
        match (source.ip().to_canonical(), self.public_ipv4_for_lan) {
            (IpAddr::V4(ip), Some(home)) if ip.is_private() => {
                SocketAddr::new(home.into(), source.port())
            }
            _ => source,
        }
    }
}

/// Sources of one second that are counted; those beyond are answered all the same: whoever forges
/// sources must not keep others from being answered.
const SOURCES: usize = 1024;

/// Counts requests by source, a second at a time.
struct Rate {
    most: u32,
    since: Instant,
    seen: HashMap<IpAddr, u32>,
}

impl Rate {
    fn new(most: u32) -> Self {
        Rate {
            most,
            since: Instant::now(),
            seen: HashMap::new(),
        }
    }

    /// Whether one more request of this source is answered.
    fn allows(&mut self, source: SocketAddr) -> bool {
        if self.most == 0 {
            return true;
        }
        if self.since.elapsed() >= Duration::from_secs(1) {
            self.since = Instant::now();
            self.seen.clear();
        }
        let network = source_prefix(source.ip());
        if self.seen.len() >= SOURCES && !self.seen.contains_key(&network) {
            return true;
        }
        let seen = self.seen.entry(network).or_default();
        *seen = seen.saturating_add(1);
        *seen <= self.most
    }
}

/// Answers STUN requests until `shutdown` is done. One dual-stack socket serves both families. What
/// is held for sources is bounded, and no answer waits: it is sent at once or dropped.
///
/// Cancel safe: dropping the future loses at most one request.
pub async fn serve(
    socket: &UdpSocket,
    counters: &StunCounters,
    options: StunOptions,
    shutdown: impl Future<Output = ()>,
) {
    let mut rate = Rate::new(options.answers_per_second);
    let mut shutdown = pin!(shutdown);
    // One byte more than the longest request, so that a longer one is not cut to a right one.
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
        if !rate.allows(source) {
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
                    tracing::debug!(%source, %error, "STUN answer not sent");
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
            public_ipv4_for_lan: None,
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
    async fn request_is_answered_and_junk_is_not() {
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
    async fn source_that_asks_too_often_gets_no_more_answers() {
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
    fn sources_at_home_are_told_the_address_of_the_home() {
        let options = StunOptions {
            answers_per_second: 0,
            public_ipv4_for_lan: Some(Ipv4Addr::new(203, 0, 113, 1)),
        };
        for (source, told) in [
            ("192.168.1.5:41641", "203.0.113.1:41641"),
            ("[::ffff:10.0.0.1]:1", "203.0.113.1:1"),
            ("198.51.100.7:9", "198.51.100.7:9"),
            ("[2001:db8::1]:9", "[2001:db8::1]:9"),
        ] {
            let (source, told): (SocketAddr, SocketAddr) =
                (source.parse().unwrap(), told.parse().unwrap());
            assert_eq!(options.address_for(source), told);
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
