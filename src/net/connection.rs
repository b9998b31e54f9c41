//! One connection: TLS, HTTP/1, and the protocol it is upgraded to.
//!
//! Must not know what requests mean; that is up to the [`Service`].

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::gate::Ticket;
use super::handshake_limit::{HANDSHAKE_BYTES, HandshakeLimit};
use super::http1::{self, Http1End};
use super::limits::Limits;
use super::proxies::{HeaderLines, Proxies};
use super::proxy_protocol;
use super::stream::Stream;
use super::tls;
use super::upgrade::{Continuation, PendingResponse, Upgrade};
use crate::shutdown::Shutdown;

/// Most unsent plaintext that TLS buffers per connection, in bytes.
const TLS_BUFFER_BYTES: usize = 16 * 1024;

/// Origin of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A TCP connection.
    Network {
        /// Address of the client; never an IPv4-mapped IPv6 address. Behind a trusted proxy it is what that says, with
        /// port 0 if the proxy does not say the port.
        source: SocketAddr,
        /// Whether the client uses TLS, to hearth or to a trusted proxy.
        tls: bool,
    },
    /// The admin socket, authenticated by its file permissions.
    Local,
}

/// Request handler of the server.
pub trait Service: Send + Sync + 'static {
    /// Answers a request, which has the [`Ticket`] of its connection in its extensions. An [`Upgrade`] in the extensions of
    /// the response ends the HTTP part.
    fn answer(self: Arc<Self>, request: Request<Incoming>, origin: Origin) -> PendingResponse;

    /// Takes over the connection if the request is a DERP fast start, which expects no HTTP response.
    fn fast_start(&self, path: &str, header: &dyn Fn(&str) -> Vec<u8>) -> Option<Upgrade>;
}

/// Settings that all connections share.
#[derive(Clone)]
pub struct Connections {
    service: Arc<dyn Service>,
    limits: Arc<Limits>,
    proxies: Arc<Proxies>,
    shutdown: Shutdown,
}

impl Connections {
    /// Connections to `service`.
    pub fn new(
        service: Arc<dyn Service>,
        limits: Limits,
        proxies: Arc<Proxies>,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            service,
            limits: Arc::new(limits),
            proxies,
            shutdown,
        }
    }

    /// Serves a TCP connection, with TLS if `tls` is set.
    ///
    /// Each phase is boxed and dropped before the next one, so a connection uses the memory of its current
    /// phase only.
    pub async fn tcp(self, mut stream: TcpStream, ticket: Ticket, tls: Option<tls::Settings>) {
        if self.proxies.may_announce(ticket.source().ip())
            && !Box::pin(self.announced(&mut stream, &ticket)).await
        {
            return;
        }
        match tls {
            None => self.plain(Box::new(stream), ticket).await,
            Some(tls) => {
                let next = Box::pin(self.encrypted(stream, ticket, tls)).await;
                if let Some(next) = next {
                    next.await;
                }
            }
        }
    }

    /// Serves a connection of the network without TLS.
    pub async fn plain(self, stream: Stream, ticket: Ticket) {
        if let Some(next) = Box::pin(self.network(stream, ticket, false)).await {
            next.await;
        }
    }

    /// Takes the header of the PROXY protocol from the start of a connection, if there is one. Returns false when the
    /// connection has to be closed.
    async fn announced(&self, stream: &mut TcpStream, ticket: &Ticket) -> bool {
        let peer = ticket.source();
        let taken = tokio::select! {
            biased;
            () = self.shutdown.wait() => return false,
            taken = timeout(self.limits.first_byte, proxy_protocol::take(stream)) => taken,
        };
        match taken {
            Ok(Ok(None)) => return true,
            Ok(Ok(Some(client))) if self.proxies.trust(peer.ip()) => {
                if let Some(client) = client {
                    ticket.recharge(client);
                }
                return true;
            }
            Ok(Ok(Some(_))) => self
                .proxies
                .note(peer.ip(), "headers of the PROXY protocol"),
            Ok(Err(error)) => tracing::debug!(%peer, %error, "PROXY protocol failed"),
            Err(_) => tracing::debug!(%peer, "nothing received before the timeout"),
        }
        false
    }

    async fn encrypted(
        self,
        stream: TcpStream,
        ticket: Ticket,
        tls: tls::Settings,
    ) -> Option<Continuation> {
        let stream = HandshakeLimit::new(stream, HANDSHAKE_BYTES);
        let accept = TlsAcceptor::from(tls).accept_with(stream, |connection| {
            connection.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        });
        let source = ticket.source();
        match timeout(self.limits.tls_handshake, Box::pin(accept)).await {
            Ok(Ok(mut stream)) => {
                stream.get_mut().0.trust();
                return self.network(Box::new(stream), ticket, true).await;
            }
            Ok(Err(error)) => tracing::debug!(%source, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%source, "TLS handshake timed out"),
        }
        None
    }

    /// Serves a connection on the admin socket.
    pub async fn local(self, stream: UnixStream) {
        let answer = |request| self.service.clone().answer(request, Origin::Local);
        // Upgrades are allowed on TCP connections only.
        let no_upgrade = |_: &str, _: &dyn Fn(&str) -> Vec<u8>| None;
        let served = http1::serve(
            Box::new(stream) as Stream,
            &self.limits,
            &self.shutdown,
            &answer,
            &no_upgrade,
        );
        match Box::pin(served).await {
            Ok(Http1End::Closed) => {}
            Ok(Http1End::Upgraded { .. }) => tracing::debug!("upgrade on the admin socket refused"),
            Err(error) => tracing::debug!(%error, "admin connection ended"),
        }
    }

    /// Serves the HTTP part of a connection and returns the upgraded protocol, if any.
    async fn network(self, stream: Stream, ticket: Ticket, tls: bool) -> Option<Continuation> {
        let peer = ticket.source();
        let origin = |header: HeaderLines<'_>| {
            let client = self.proxies.client(peer, tls, header);
            // A proxy sends requests of several clients on one connection.
            if client.source != ticket.source() {
                ticket.recharge(client.source);
            }
            Origin::Network {
                source: client.source,
                tls: client.tls,
            }
        };
        let answer = |mut request: Request<Incoming>| {
            let headers = request.headers();
            let origin = origin(&|name| {
                let lines = headers.get_all(name).iter();
                http1::joined(lines.map(|line| line.as_bytes()))
            });
            request.extensions_mut().insert(ticket.clone());
            self.service.clone().answer(request, origin)
        };
        let fast_start = |path: &str, header: &dyn Fn(&str) -> Vec<u8>| {
            let upgrade = self.service.fast_start(path, header)?;
            origin(header);
            Some(upgrade)
        };
        let served = http1::serve(stream, &self.limits, &self.shutdown, &answer, &fast_start);
        match Box::pin(served).await {
            Ok(Http1End::Closed) => None,
            Ok(Http1End::Upgraded {
                stream,
                received,
                upgrade,
            }) => Some(upgrade.start(stream, received, ticket.clone())),
            Err(error) => {
                tracing::debug!(source = %ticket.source(), %error, "connection ended");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::body;
    use crate::net::gate::Gate;
    use crate::net::listener::{Serve, accept_all, bind_tcp, bind_unix};
    use crate::net::tls::{CertNames, CertResolver, Identity, server_config};
    use crate::supervise::Tasks;
    use hyper::StatusCode;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, RootCertStore};
    use std::path::Path;
    use std::time::Duration;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio_rustls::TlsConnector;

    struct Echo;

    /// A protocol that echoes the bytes received with the request.
    fn echo(protocol: &'static str) -> Upgrade {
        Upgrade::new(protocol, move |mut stream, received, ticket| {
            Box::pin(async move {
                let source = ticket.source();
                let from = match source.ip().is_loopback() {
                    true => String::new(),
                    false => format!("{source}:"),
                };
                let text = [
                    protocol.as_bytes(),
                    b":",
                    from.as_bytes(),
                    received.as_ref(),
                ]
                .concat();
                let _ = stream.write_all(&text).await;
                let _ = stream.shutdown().await;
            })
        })
    }

    impl Service for Echo {
        fn answer(self: Arc<Self>, request: Request<Incoming>, origin: Origin) -> PendingResponse {
            let answer = match request.uri().path() {
                "/echo" => {
                    let mut answer = body::status(StatusCode::SWITCHING_PROTOCOLS);
                    answer.extensions_mut().insert(echo("echo"));
                    answer
                }
                _ => {
                    let from = match origin {
                        Origin::Network { tls: true, .. } => "tls".to_owned(),
                        Origin::Network { source, .. } if source.ip().is_loopback() => {
                            "plain".into()
                        }
                        Origin::Network { source, .. } => source.to_string(),
                        Origin::Local => "local".into(),
                    };
                    body::text(StatusCode::OK, &from)
                }
            };
            Box::pin(std::future::ready(answer))
        }

        fn fast_start(&self, path: &str, header: &dyn Fn(&str) -> Vec<u8>) -> Option<Upgrade> {
            (path == "/echo" && header("fast-start") == b"1").then(|| echo("fast"))
        }
    }

    struct Running {
        address: SocketAddr,
        shutdown: Shutdown,
        tasks: Tasks,
    }

    impl Running {
        fn start(tls: Option<tls::Settings>, socket: Option<&Path>) -> Self {
            Self::behind(&[], tls, socket)
        }

        fn behind(proxies: &[&str], tls: Option<tls::Settings>, socket: Option<&Path>) -> Self {
            let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
            let limits = Limits::default();
            let proxies =
                Proxies::new(proxies.iter().map(|range| range.parse().unwrap()).collect());
            let proxies = Arc::new(proxies);
            let gate = Gate::new(&limits, proxies.clone());
            let connections = Connections::new(Arc::new(Echo), limits, proxies, shutdown.clone());
            if let Some(path) = socket {
                let listener = bind_unix(path).unwrap();
                let connections = connections.clone();
                let serve: Serve<UnixStream> =
                    Box::new(move |stream, _| Box::pin(connections.clone().local(stream)));
                let accept = accept_all(
                    listener,
                    gate.clone(),
                    shutdown.clone(),
                    tasks.clone(),
                    serve,
                );
                tasks.spawn("accept", accept);
            }
            let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap().remove(0);
            let address = listener.local_addr().unwrap();
            let serve: Serve<TcpStream> = Box::new(move |stream, ticket| {
                let connections = connections.clone();
                Box::pin(connections.tcp(stream, ticket, tls.clone()))
            });
            let accept = accept_all(listener, gate, shutdown.clone(), tasks.clone(), serve);
            tasks.spawn("accept", accept);
            Self {
                address,
                shutdown,
                tasks,
            }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        async fn stop(self) {
            self.shutdown.trigger();
            assert!(self.tasks.finish(Duration::from_secs(4)).await.is_empty());
        }
    }

    async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, request: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    const GET: &str = "GET / HTTP/1.1\r\nConnection: close\r\n\r\n";
    const ECHO: &str = "GET /echo HTTP/1.1\r\nUpgrade: echo\r\nConnection: Upgrade\r\n";

    #[tokio::test]
    async fn plain_requests_and_upgrades_are_distinguished() {
        let server = Running::start(None, None);
        let answer = ask(&mut server.connect().await, GET).await;
        assert!(answer.ends_with("\r\n\r\nplain\n"), "{answer}");
        let answer = ask(&mut server.connect().await, &format!("{ECHO}\r\nearly")).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\necho:early"), "{answer}");
        let fast = format!("{ECHO}Fast-Start: 1\r\n\r\nearly");
        let answer = ask(&mut server.connect().await, &fast).await;
        assert_eq!(answer, "fast:early");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_trusted_proxy_names_the_client_of_each_request_and_upgrade() {
        let server = Running::behind(&["127.0.0.0/8"], None, None);
        let mut stream = server.connect().await;
        let request = |client: &str| format!("GET / HTTP/1.1\r\nX-Forwarded-For: {client}\r\n");
        let first = format!("{}\r\n", request("203.0.113.1"));
        stream.write_all(first.as_bytes()).await.unwrap();
        let second = format!(
            "{}Connection: close\r\n\r\n",
            request("203.0.113.2, 127.0.0.2")
        );
        let answer = ask(&mut stream, &second).await;
        let clients = ["\r\n\r\n203.0.113.1:0\n", "\r\n\r\n203.0.113.2:0\n"];
        assert!(
            clients.iter().all(|client| answer.contains(client)),
            "{answer}"
        );
        let named = format!("{ECHO}Forwarded: for=\"[2001:db8::1]:5\"\r\n\r\n");
        let answer = ask(&mut server.connect().await, &named).await;
        assert!(answer.ends_with("echo:[2001:db8::1]:5:"), "{answer}");
        let fast = format!("{ECHO}Fast-Start: 1\r\nX-Forwarded-For: 203.0.113.3\r\n\r\n");
        let answer = ask(&mut server.connect().await, &fast).await;
        assert_eq!(answer, "fast:203.0.113.3:0:");
        server.stop().await;
    }

    #[tokio::test]
    async fn the_proxy_protocol_names_the_client_of_a_connection_from_a_trusted_proxy_alone() {
        let header = "PROXY TCP4 203.0.113.9 192.0.2.1 4711 80\r\n";
        let server = Running::behind(&["127.0.0.0/8"], None, None);
        let answer = ask(&mut server.connect().await, &format!("{header}{GET}")).await;
        assert!(answer.ends_with("\r\n\r\n203.0.113.9:4711\n"), "{answer}");
        // The client is not a proxy itself.
        let spoofed = GET.replace("\r\n\r\n", "\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n");
        let answer = ask(&mut server.connect().await, &format!("{header}{spoofed}")).await;
        assert!(answer.ends_with("\r\n\r\n203.0.113.9:4711\n"), "{answer}");
        let answer = ask(&mut server.connect().await, GET).await;
        assert!(answer.ends_with("\r\n\r\nplain\n"), "{answer}");
        server.stop().await;
        let server = Running::start(None, None);
        let mut stream = server.connect().await;
        stream.write_all(header.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty());
        let answer = ask(&mut server.connect().await, &spoofed).await;
        assert!(answer.ends_with("\r\n\r\nplain\n"), "{answer}");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_shutdown_ends_connections_that_have_said_nothing() {
        for proxies in [&[][..], &["127.0.0.1/32"]] {
            let server = Running::behind(proxies, None, None);
            let silent = server.connect().await;
            let answer = ask(&mut server.connect().await, GET).await;
            assert!(answer.ends_with("plain\n"), "{answer}");
            server.stop().await;
            drop(silent);
        }
    }

    #[tokio::test]
    async fn the_proxy_protocol_comes_before_tls() {
        let dir = tempfile::tempdir().unwrap();
        let server = Running::behind(&["127.0.0.1/32"], Some(tls_settings(dir.path())), None);
        let mut stream = server.connect().await;
        let header = "PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n";
        stream.write_all(header.as_bytes()).await.unwrap();
        let name = ServerName::try_from("hearth.lan").unwrap();
        let mut stream = connector(dir.path()).connect(name, stream).await.unwrap();
        let answer = ask(&mut stream, GET).await;
        assert!(answer.ends_with("tls\n"), "{answer}");
        server.stop().await;
    }

    fn tls_settings(dir: &Path) -> tls::Settings {
        let names = CertNames {
            common_name: "hearth".into(),
            dns: vec!["hearth.lan".into()],
            addresses: Vec::new(),
        };
        let identity =
            Identity::self_signed(dir, &names, hearth_core::clock::Timestamp::from_unix_ms(0))
                .unwrap();
        server_config(CertResolver::new(identity), tls::Aes::InSoftware).unwrap()
    }

    #[tokio::test]
    async fn a_tls_handshake_that_does_not_end_is_not_held() {
        let dir = tempfile::tempdir().unwrap();
        let server = Running::start(Some(tls_settings(dir.path())), None);
        let mut stream = server.connect().await;
        // The first records of a ClientHello of 60 KB.
        let mut hello = vec![22, 3, 1, 0x40, 0, 1, 0, 0xf0, 0];
        hello.resize(HANDSHAKE_BYTES + 1, 0);
        let _ = stream.write_all(&hello).await;
        let mut answer = Vec::new();
        let closed = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer));
        assert!(closed.await.is_ok());
        server.stop().await;
    }

    /// A client that trusts the certificate in this directory.
    fn connector(dir: &Path) -> TlsConnector {
        let file = dir.join(tls::CERTIFICATE_FILE);
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(file).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    #[tokio::test]
    async fn the_same_is_served_encrypted() {
        let dir = tempfile::tempdir().unwrap();
        let server = Running::start(Some(tls_settings(dir.path())), None);
        let connector = connector(dir.path());
        for (request, expected) in [
            (GET.to_owned(), "tls\n"),
            (format!("{ECHO}Fast-Start: 1\r\n\r\n"), "fast:"),
        ] {
            let name = ServerName::try_from("hearth.lan").unwrap();
            let stream = server.connect().await;
            let mut stream = connector.connect(name, stream).await.unwrap();
            let client = stream.get_ref().1;
            assert_eq!(client.alpn_protocol(), Some(&b"http/1.1"[..]));
            // The client prefers AES.
            let suite = client.negotiated_cipher_suite().unwrap().suite();
            let cheap = rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
            assert_eq!(suite, cheap);
            let answer = ask(&mut stream, &request).await;
            assert!(answer.ends_with(expected), "{answer}");
        }
        server.stop().await;
    }

    #[tokio::test]
    async fn the_admin_socket_is_distinguished_from_the_network() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth.sock");
        let server = Running::start(None, Some(&path));
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let answer = ask(&mut stream, GET).await;
        assert!(answer.ends_with("\r\n\r\nlocal\n"), "{answer}");
        server.stop().await;
    }
}
