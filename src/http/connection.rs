//! The life of one connection: TLS, plain HTTP, and what it may become after that.
//!
//! Must not know: what the requests mean; that is the [`Service`]'s.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, Response};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::body::Body;
use super::front::{self, Ended, Upgrade};
use super::limits::Limits;
use super::ts2021::{Control, Peer};
use crate::shutdown::Shutdown;

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

/// What the server answers. Cloned for each request, so it should be a few shared pointers.
pub trait Service: Clone + Send + Sync + 'static {
    /// Answers a plain request. An answer with an [`Upgrade`] among its extensions ends the HTTP part.
    fn plain(
        self,
        request: Request<Incoming>,
        origin: Origin,
    ) -> impl Future<Output = Response<Body>> + Send + 'static;

    /// Answers a request of a client that has proven who it is. Dropped when the client takes the request back.
    fn machine(
        self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Response<Body>> + Send + 'static;

    /// Relays for a connection until it ends; `received` is to be read before the stream.
    fn relay<S>(
        self,
        stream: S,
        received: Bytes,
        source: SocketAddr,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static;
}

/// What all connections share.
#[derive(Debug, Clone)]
pub struct Connections<A> {
    app: A,
    control: Arc<Control>,
    limits: Arc<Limits>,
    shutdown: Shutdown,
}

impl<A: Service> Connections<A> {
    /// Connections to this server.
    pub fn new(app: A, control: Arc<Control>, limits: Limits, shutdown: Shutdown) -> Self {
        Self {
            app,
            control,
            limits: Arc::new(limits),
            shutdown,
        }
    }

    /// Serves a connection from the network, encrypted if there are settings for that.
    pub async fn tcp(self, stream: TcpStream, source: SocketAddr, tls: Option<Arc<ServerConfig>>) {
        let Some(tls) = tls else {
            return self.network(stream, source, false).await;
        };
        let accept = TlsAcceptor::from(tls).accept_with(stream, |connection| {
            connection.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        });
        match timeout(self.limits.tls_handshake, Box::pin(accept)).await {
            Ok(Ok(stream)) => self.network(stream, source, true).await,
            Ok(Err(error)) => tracing::debug!(%source, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%source, "TLS handshake took too long"),
        }
    }

    /// Serves a connection to the admin socket.
    pub async fn local(self, stream: UnixStream) {
        match Box::pin(self.front(stream, Origin::Local)).await {
            Ok(Ended::Closed) => {}
            Ok(Ended::Upgraded { .. }) => tracing::debug!("upgrade on the admin socket refused"),
            Err(error) => tracing::debug!(%error, "admin connection ended"),
        }
    }

    // The phases are boxed, so that a connection holds the memory of its present phase only.
    async fn network<S>(self, stream: S, source: SocketAddr, tls: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let origin = Origin::Network { source, tls };
        let (stream, received, upgrade) = match Box::pin(self.front(stream, origin)).await {
            Ok(Ended::Closed) => return,
            Ok(Ended::Upgraded {
                stream,
                received,
                upgrade,
            }) => (stream, received, upgrade),
            Err(error) => return tracing::debug!(%source, %error, "connection ended"),
        };
        let initiation = match upgrade {
            Upgrade::Relay => {
                return Box::pin(self.app.clone().relay(stream, received, source)).await;
            }
            Upgrade::Control(initiation) => initiation,
        };
        let app = self.app.clone();
        let answer = move |request, peer| app.clone().machine(request, peer);
        let control = self
            .control
            .serve(stream, received, initiation, source, answer);
        if let Err(error) = Box::pin(control).await {
            tracing::debug!(%source, %error, "control connection ended");
        }
    }

    fn front<S>(
        &self,
        stream: S,
        origin: Origin,
    ) -> impl Future<Output = Result<Ended<S>, front::FrontError>> + Send
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let answer = move |request| self.app.clone().plain(request, origin);
        front::serve(stream, &self.limits, &self.shutdown, answer)
    }
}
