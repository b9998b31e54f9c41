//! The life of one connection: TLS, plain HTTP, and what it may become after that.
//!
//! Must not know: what the requests mean; that is the [`Service`]'s.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::body::Body;
use super::early::{Early, HANDSHAKE_BYTES};
use super::front::{self, ControlUpgrade, Ended, RelayUpgrade, Upgrade};
use super::limits::Limits;
use super::stream::Stream;
use super::ts2021::{Control, ControlError, Peer};
use crate::shutdown::Shutdown;
use crate::tls;

/// The most unsent plaintext that TLS holds for one connection.
const TLS_BUFFER_BYTES: usize = 16 * 1024;

/// Where a request outside of a control connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From the network.
    Network {
        /// The peer's address; IPv4 addresses are never in their IPv6 form.
        source: SocketAddr,
        /// Whether the connection is encrypted.
        tls: bool,
    },
    /// From the admin socket, whose file permissions say who may.
    Local,
}

/// An answer that is being made.
pub type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// What the server answers.
pub trait Service: Send + Sync + 'static {
    /// Answers a plain request. An answer with an [`Upgrade`] among its extensions ends the HTTP part.
    fn plain(self: Arc<Self>, request: Request<Incoming>, origin: Origin) -> Answer;

    /// Answers a request of a client that has proven who it is. Dropped when the client takes the request back.
    fn machine(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Answer;

    /// Relays for a connection until it ends; `received` is to be read before the stream.
    fn relay(
        self: Arc<Self>,
        stream: Stream,
        received: Bytes,
        source: SocketAddr,
        upgrade: RelayUpgrade,
    ) -> Next;
}

/// What a connection becomes after its HTTP part.
pub type Next = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What all connections share.
#[derive(Clone)]
pub struct Connections {
    app: Arc<dyn Service>,
    control: Arc<Control>,
    limits: Arc<Limits>,
    shutdown: Shutdown,
}

impl Connections {
    /// Connections to this server.
    pub fn new(
        app: Arc<dyn Service>,
        control: Arc<Control>,
        limits: Limits,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            app,
            control,
            limits: Arc::new(limits),
            shutdown,
        }
    }

    /// Serves a connection from the network, encrypted if there are settings for that.
    ///
    /// The phases are boxed and follow each other here, so that a connection holds the memory of its
    /// present phase only.
    pub async fn tcp(self, stream: TcpStream, source: SocketAddr, tls: Option<tls::Settings>) {
        let next = match tls {
            None => Box::pin(self.network(Box::new(stream), source, false)).await,
            Some(tls) => Box::pin(self.encrypted(stream, source, tls)).await,
        };
        if let Some(next) = next {
            next.await;
        }
    }

    async fn encrypted(
        self,
        stream: TcpStream,
        source: SocketAddr,
        tls: tls::Settings,
    ) -> Option<Next> {
        let stream = Early::new(stream, HANDSHAKE_BYTES);
        let accept = TlsAcceptor::from(tls).accept_with(stream, |connection| {
            connection.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        });
        match timeout(self.limits.tls_handshake, Box::pin(accept)).await {
            Ok(Ok(mut stream)) => {
                stream.get_mut().0.trust();
                return self.network(Box::new(stream), source, true).await;
            }
            Ok(Err(error)) => tracing::debug!(%source, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%source, "TLS handshake took too long"),
        }
        None
    }

    /// Serves a connection to the admin socket.
    pub async fn local(self, stream: UnixStream) {
        match Box::pin(self.front(Box::new(stream), Origin::Local)).await {
            Ok(Ended::Closed) => {}
            Ok(Ended::Upgraded { .. }) => tracing::debug!("upgrade on the admin socket refused"),
            Err(error) => tracing::debug!(%error, "admin connection ended"),
        }
    }

    /// The HTTP part of a connection. Gives what follows it, if anything.
    async fn network(self, stream: Stream, source: SocketAddr, tls: bool) -> Option<Next> {
        let origin = Origin::Network { source, tls };
        let (stream, received, upgrade) = match Box::pin(self.front(stream, origin)).await {
            Ok(Ended::Closed) => return None,
            Ok(Ended::Upgraded {
                stream,
                received,
                upgrade,
            }) => (stream, received, upgrade),
            Err(error) => {
                tracing::debug!(%source, %error, "connection ended");
                return None;
            }
        };
        let upgrade = match upgrade {
            Upgrade::Relay(upgrade) => {
                return Some(self.app.relay(stream, received, source, upgrade));
            }
            Upgrade::Control(upgrade) => upgrade,
        };
        let (app, control) = (self.app, self.control);
        let answer = move |request, peer| app.clone().machine(request, peer);
        let log = move |ended: Result<(), ControlError>| {
            if let Err(error) = ended {
                tracing::debug!(%source, %error, "control connection ended");
            }
        };
        // Each kind is a future of its own, so that a connection pays for the memory of its kind only.
        Some(match upgrade {
            ControlUpgrade::Plain(initiation) => Box::pin(async move {
                let served = control.serve(stream, received, initiation, source, answer);
                log(served.await);
            }),
            ControlUpgrade::WebSocket(initiation) => Box::pin(async move {
                let served = control.serve_web_socket(stream, received, initiation, source, answer);
                log(served.await);
            }),
            ControlUpgrade::Misused => Box::pin(async move {
                log(control.refuse_web_socket(stream, received).await);
            }),
        })
    }

    async fn front(
        &self,
        stream: Stream,
        origin: Origin,
    ) -> Result<Ended<Stream>, front::FrontError> {
        let answer = |request| self.app.clone().plain(request, origin);
        front::serve(stream, &self.limits, &self.shutdown, &answer).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::listener::{Gate, Serve, accept_all, bind_tcp, bind_unix};
    use crate::http::{body, derp, ts2021};
    use crate::keys::{ChallengeKey, MachineSecret};
    use crate::noise::early_payload;
    use crate::noise::handshake::{RESPONSE_BYTES, testing::Initiator};
    use crate::noise::stream::NoiseStream;
    use crate::supervise::Tasks;
    use crate::tls::{CertNames, CertResolver, Identity, server_config};
    use hyper::StatusCode;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, RootCertStore};
    use std::path::Path;
    use std::time::Duration;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio_rustls::TlsConnector;

    struct Echo;

    impl Service for Echo {
        fn plain(self: Arc<Self>, request: Request<Incoming>, origin: Origin) -> Answer {
            let (head, _) = request.into_parts();
            let answer = match head.uri.path() {
                ts2021::PATH => ts2021::upgrade(&head),
                derp::PATH => derp::upgrade(&head, &hearth_derp::Key::from([7; 32])),
                _ => {
                    let from = match origin {
                        Origin::Network { tls: true, .. } => "tls",
                        Origin::Network { source, .. } if source.ip().is_loopback() => "plain",
                        Origin::Network { .. } => "elsewhere",
                        Origin::Local => "local",
                    };
                    body::text(StatusCode::OK, from)
                }
            };
            Box::pin(std::future::ready(answer))
        }

        fn machine(self: Arc<Self>, _: Request<Incoming>, _: Peer) -> Answer {
            Box::pin(std::future::ready(body::status(StatusCode::OK)))
        }

        fn relay(
            self: Arc<Self>,
            mut stream: Stream,
            received: Bytes,
            _: SocketAddr,
            _: RelayUpgrade,
        ) -> Next {
            Box::pin(async move {
                let text = [b"relay:", received.as_ref()].concat();
                let _ = stream.write_all(&text).await;
                let _ = stream.shutdown().await;
            })
        }
    }

    struct Running {
        address: SocketAddr,
        shutdown: Shutdown,
        tasks: Tasks,
    }

    impl Running {
        fn start(tls: Option<tls::Settings>, socket: Option<&Path>) -> Self {
            let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
            let limits = Limits::default();
            let control = Control::new(
                MachineSecret::from_bytes([0x11; 32]),
                ChallengeKey::from_bytes([9; 32]),
                limits.clone(),
                shutdown.clone(),
            );
            let connections =
                Connections::new(Arc::new(Echo), Arc::new(control), limits, shutdown.clone());
            let gate = Gate::new(8, 8);
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
            let serve: Serve<TcpStream> = Box::new(move |stream, source| {
                let connections = connections.clone();
                Box::pin(connections.tcp(stream, source.unwrap(), tls.clone()))
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
    const DERP: &str = "GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n";

    #[tokio::test]
    async fn plain_requests_and_relay_connections_are_told_apart() {
        let server = Running::start(None, None);
        let answer = ask(&mut server.connect().await, GET).await;
        assert!(answer.ends_with("\r\n\r\nplain\n"), "{answer}");
        let answer = ask(&mut server.connect().await, &format!("{DERP}\r\nearly")).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\nrelay:early"), "{answer}");
        let fast = format!("{DERP}Derp-Fast-Start: 1\r\n\r\nearly");
        let answer = ask(&mut server.connect().await, &fast).await;
        assert_eq!(answer, "relay:early");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_control_connection_starts_after_its_upgrade() {
        let server = Running::start(None, None);
        let secret = MachineSecret::from_bytes([0x22; 32]);
        let key = MachineSecret::from_bytes([0x11; 32]).public();
        let client = Initiator::new(&secret, key, 137);
        let mut stream = server.connect().await;
        let request = format!(
            "POST /ts2021 HTTP/1.1\r\nContent-Length: 0\r\nUpgrade: tailscale-control-protocol\r\n\
             Connection: upgrade\r\nX-Tailscale-Handshake: {}\r\n\r\n",
            data_encoding::BASE64.encode(&client.initiation)
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
        assert!(head.contains("\r\nupgrade: tailscale-control-protocol\r\n"));
        let mut response = [0; RESPONSE_BYTES];
        stream.read_exact(&mut response).await.unwrap();
        let (seal, open) = client.finish(&response);
        let mut stream = NoiseStream::new(stream, seal, open, &[], &[]);
        let expected = early_payload(&ChallengeKey::from_bytes([9; 32]));
        let mut early = vec![0; expected.len()];
        stream.read_exact(&mut early).await.unwrap();
        assert_eq!(early, expected);
        drop(stream);
        server.stop().await;
    }

    fn tls_settings(dir: &Path) -> tls::Settings {
        let names = CertNames {
            common_name: "hearth".into(),
            dns: vec!["hearth.lan".into()],
            addresses: Vec::new(),
        };
        let identity = Identity::self_signed(dir, &names).unwrap();
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

    #[tokio::test]
    async fn the_same_is_served_encrypted() {
        let dir = tempfile::tempdir().unwrap();
        let server = Running::start(Some(tls_settings(dir.path())), None);
        let file = dir.path().join(tls::CERTIFICATE_FILE);
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
        let connector = TlsConnector::from(Arc::new(config));
        for (request, expected) in [
            (GET.to_owned(), "tls\n"),
            (format!("{DERP}Derp-Fast-Start: 1\r\n\r\n"), "relay:"),
        ] {
            let name = ServerName::try_from("hearth.lan").unwrap();
            let stream = server.connect().await;
            let mut stream = connector.connect(name, stream).await.unwrap();
            let client = stream.get_ref().1;
            assert_eq!(client.alpn_protocol(), Some(&b"http/1.1"[..]));
            // The client would rather have AES.
            let suite = client.negotiated_cipher_suite().unwrap().suite();
            let cheap = rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
            assert_eq!(suite, cheap);
            let answer = ask(&mut stream, &request).await;
            assert!(answer.ends_with(expected), "{answer}");
        }
        server.stop().await;
    }

    #[tokio::test]
    async fn the_admin_socket_is_told_from_the_network() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth.sock");
        let server = Running::start(None, Some(&path));
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let answer = ask(&mut stream, GET).await;
        assert!(answer.ends_with("\r\n\r\nlocal\n"), "{answer}");
        server.stop().await;
    }
}
