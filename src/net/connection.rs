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

use super::handshake_limit::{HANDSHAKE_BYTES, HandshakeLimit};
use super::http1::{self, Http1End};
use super::limits::Limits;
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
        /// Address of the peer; never an IPv4-mapped IPv6 address.
        source: SocketAddr,
        /// Whether the connection uses TLS.
        tls: bool,
    },
    /// The admin socket, authenticated by its file permissions.
    Local,
}

/// Request handler of the server.
pub trait Service: Send + Sync + 'static {
    /// Answers a request. An [`Upgrade`] in the extensions of the response ends the HTTP part.
    fn answer(self: Arc<Self>, request: Request<Incoming>, origin: Origin) -> PendingResponse;

    /// Takes over the connection if the request is a DERP fast start, which expects no HTTP response.
    fn fast_start(&self, path: &str, header: &dyn Fn(&str) -> Vec<u8>) -> Option<Upgrade>;
}

/// Settings that all connections share.
#[derive(Clone)]
pub struct Connections {
    service: Arc<dyn Service>,
    limits: Arc<Limits>,
    shutdown: Shutdown,
}

impl Connections {
    /// Connections to `service`.
    pub fn new(service: Arc<dyn Service>, limits: Limits, shutdown: Shutdown) -> Self {
        Self {
            service,
            limits: Arc::new(limits),
            shutdown,
        }
    }

    /// Serves a TCP connection, with TLS if `tls` is set.
    ///
    /// Each phase is boxed and dropped before the next one, so a connection uses the memory of its current
    /// phase only.
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
    ) -> Option<Continuation> {
        let stream = HandshakeLimit::new(stream, HANDSHAKE_BYTES);
        let accept = TlsAcceptor::from(tls).accept_with(stream, |connection| {
            connection.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        });
        match timeout(self.limits.tls_handshake, Box::pin(accept)).await {
            Ok(Ok(mut stream)) => {
                stream.get_mut().0.trust();
                return self.network(Box::new(stream), source, true).await;
            }
            Ok(Err(error)) => tracing::debug!(%source, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%source, "TLS handshake timed out"),
        }
        None
    }

    /// Serves a connection on the admin socket.
    pub async fn local(self, stream: UnixStream) {
        match Box::pin(self.http1(Box::new(stream), Origin::Local)).await {
            Ok(Http1End::Closed) => {}
            Ok(Http1End::Upgraded { .. }) => tracing::debug!("upgrade on the admin socket refused"),
            Err(error) => tracing::debug!(%error, "admin connection ended"),
        }
    }

    /// Serves the HTTP part of a connection and returns the upgraded protocol, if any.
    async fn network(self, stream: Stream, source: SocketAddr, tls: bool) -> Option<Continuation> {
        let origin = Origin::Network { source, tls };
        match Box::pin(self.http1(stream, origin)).await {
            Ok(Http1End::Closed) => None,
            Ok(Http1End::Upgraded {
                stream,
                received,
                upgrade,
            }) => Some(upgrade.start(stream, received, source)),
            Err(error) => {
                tracing::debug!(%source, %error, "connection ended");
                None
            }
        }
    }

    async fn http1(
        &self,
        stream: Stream,
        origin: Origin,
    ) -> Result<Http1End<Stream>, http1::Http1Error> {
        let answer = |request| self.service.clone().answer(request, origin);
        let fast_start = |path: &str, header: &dyn Fn(&str) -> Vec<u8>| {
            // Upgrades are allowed on TCP connections only.
            (origin != Origin::Local)
                .then(|| self.service.fast_start(path, header))
                .flatten()
        };
        http1::serve(stream, &self.limits, &self.shutdown, &answer, &fast_start).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::body;
    use crate::net::listener::{Gate, Serve, accept_all, bind_tcp, bind_unix};
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
        Upgrade::new(protocol, move |mut stream, received, _| {
            Box::pin(async move {
                let text = [protocol.as_bytes(), b":", received.as_ref()].concat();
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
            let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
            let limits = Limits::default();
            let connections = Connections::new(Arc::new(Echo), limits, shutdown.clone());
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
