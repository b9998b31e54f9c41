//! The listeners.

use std::fs::DirBuilder;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hearth_derp::udp::{StunCounters, StunOptions};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};

use super::{ServeError, system};
use crate::config::{Config, SYSTEM_SOCKET, Scheme, ServerUrl};
use crate::metrics;
use crate::net::connection::Connections;
use crate::net::gate::Gate;
use crate::net::limits::Limits;
use crate::net::listener::{Serve, accept_all, adopt_tcp, adopt_udp, bind_tcp, bind_unix};
use crate::net::tls;
use crate::service::Sockets;
use crate::shutdown::Shutdown;
use crate::status::addresses::{Addresses, CurrentUrl};
use crate::status::relay::Metrics;
use crate::supervise::Tasks;
use hearth_core::disk::Cause;

/// Concurrent connections to the metrics listener.
const METRICS_CONNECTIONS: usize = 8;

/// All listeners.
pub(super) struct Listeners {
    http: Vec<TcpListener>,
    https: Vec<TcpListener>,
    stun: Vec<UdpSocket>,
    metrics: Vec<TcpListener>,
    local: Option<UnixListener>,
    socket: PathBuf,
}

impl Listeners {
    /// Opens the configured listeners; sockets from the service manager take precedence.
    pub(super) async fn bind(config: &Config, sockets: Sockets) -> Result<Self, ServeError> {
        let listen = &config.listen;
        for fault in &sockets.faults {
            tracing::warn!("{fault}");
        }
        if !sockets.is_empty() {
            tracing::info!("listening on sockets from the service manager");
        }
        // All of them are tried, so that a person learns of all clashes at once.
        let mut faults = Vec::new();
        let mut tcp = |given: Vec<TcpListener>, what, flag, address: Option<SocketAddr>| {
            let Some(address) = address.filter(|_| given.is_empty()) else {
                return given;
            };
            let bound = bind_tcp(address).map_err(bind(what, flag, address));
            bound.unwrap_or_else(|fault| {
                faults.push(fault);
                Vec::new()
            })
        };
        let http = adopt(sockets.http, adopt_tcp)?;
        let http = tcp(http, "HTTP", "--http", listen.http);
        let https = adopt(sockets.https, adopt_tcp)?;
        let https = tcp(https, "HTTPS", "--https", listen.https);
        let metrics = tcp(Vec::new(), "metrics", "metrics.listen", config.metrics);
        let mut stun = adopt(sockets.stun, adopt_udp)?;
        if let Some(address) = listen.stun.filter(|_| stun.is_empty()) {
            match bind_udp(address).await {
                Ok(bound) => stun = bound,
                Err(fault) => faults.push(bind("STUN (UDP)", "--stun", address)(fault)),
            }
        }
        match faults.len() {
            0 => {}
            1 => faults.into_iter().try_for_each(Err)?,
            _ => return Err(ServeError::Binds(faults)),
        }
        let (local, socket) = bind_local(&config.socket, SYSTEM_SOCKET.as_ref())?;
        Ok(Self {
            http,
            https,
            stun,
            metrics,
            local,
            socket,
        })
    }

    /// The addresses of the listeners, with the ports that the system chose.
    pub(super) fn addresses(&self, url: &ServerUrl) -> Result<Addresses, ServeError> {
        let bound = |listeners: &[TcpListener]| {
            let first = listeners.first().map(TcpListener::local_addr);
            first.transpose().map_err(system("a listener's address"))
        };
        let (http, https) = (bound(&self.http)?, bound(&self.https)?);
        let stun = self.stun.first().map(UdpSocket::local_addr);
        let listener = match url.scheme() {
            Scheme::Http => http,
            Scheme::Https => https,
        };
        let url = match listener {
            Some(listener) if url.port() == 0 => {
                ServerUrl::new(url.scheme(), url.host().clone(), Some(listener.port()))
            }
            _ => url.clone(),
        };
        Ok(Addresses {
            server_url: CurrentUrl::new(url),
            http,
            https,
            stun: stun.transpose().map_err(system("a socket's address"))?,
            socket: self.socket.clone(),
        })
    }

    /// Serves the metrics to monitoring systems.
    pub(super) fn start_metrics(&mut self, metrics: &Metrics, tasks: &Tasks, shutdown: &Shutdown) {
        let limits = Limits {
            connections: METRICS_CONNECTIONS,
            connections_per_source: METRICS_CONNECTIONS,
            ..Limits::default()
        };
        let gate = Gate::new(&limits, Arc::default());
        for listener in std::mem::take(&mut self.metrics) {
            let (metrics, stop) = (metrics.clone(), shutdown.clone());
            let serve: Serve<TcpStream> = Box::new(move |stream, _| {
                let (metrics, stop) = (metrics.clone(), stop.clone());
                Box::pin(async move { metrics::serve(metrics, Box::new(stream), &stop).await })
            });
            let accepting = accept_all(
                listener,
                gate.clone(),
                shutdown.clone(),
                tasks.clone(),
                serve,
            );
            tasks.spawn("metrics", accepting);
        }
    }

    /// Starts all other listeners.
    pub(super) fn start(
        self,
        connections: &Connections,
        gate: &Gate,
        tls: tls::Settings,
        stun: (&StunCounters, &StunOptions),
        tasks: &Tasks,
        shutdown: &Shutdown,
    ) {
        let plain = self.http.into_iter().map(|listener| (listener, None));
        let encrypted = self
            .https
            .into_iter()
            .map(|listener| (listener, Some(tls.clone())));
        for (listener, tls) in plain.chain(encrypted) {
            let connections = connections.clone();
            let serve: Serve<TcpStream> = Box::new(move |stream, ticket| {
                Box::pin(connections.clone().tcp(stream, ticket, tls.clone()))
            });
            let accepting = accept_all(
                listener,
                gate.clone(),
                shutdown.clone(),
                tasks.clone(),
                serve,
            );
            tasks.spawn("listener", accepting);
        }
        let local_gate = Gate::queue(Limits::default().admin_connections);
        let connections = connections.clone();
        let serve: Serve<UnixStream> =
            Box::new(move |stream, _| Box::pin(connections.clone().local(stream)));
        if let Some(local) = self.local {
            let accepting = accept_all(local, local_gate, shutdown.clone(), tasks.clone(), serve);
            tasks.spawn("socket", accepting);
        }
        for socket in self.stun {
            let stop = shutdown.clone();
            let (counters, options) = (stun.0.clone(), stun.1.clone());
            tasks.spawn("stun", async move {
                let stopped = async move { stop.wait().await };
                hearth_derp::udp::serve(&socket, &counters, options, stopped).await;
            });
        }
    }
}

/// Opens the admin socket. If the disk of its directory cannot be written, `instead` takes its place, where commands look
/// as well, or there is none: devices need no socket.
fn bind_local(path: &Path, instead: &Path) -> Result<(Option<UnixListener>, PathBuf), ServeError> {
    let fault = match bind_unix(path) {
        Ok(listener) => return Ok((Some(listener), path.to_owned())),
        Err(fault) => fault,
    };
    let socket = path.display();
    if !matches!(
        Cause::of(&fault),
        Cause::ReadOnly | Cause::Full | Cause::Failing
    ) {
        return Err(ServeError::Bind {
            what: "the socket",
            address: socket.to_string(),
            flag: "--socket",
            source: fault,
        });
    }
    let directory = instead.parent().unwrap_or(instead);
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    match made.and_then(|()| bind_unix(instead)) {
        Ok(listener) => {
            let used = instead.display();
            tracing::warn!(%socket, %fault, %used, "cannot create the socket; another one takes its place");
            Ok((Some(listener), instead.to_owned()))
        }
        Err(_) => {
            tracing::error!(
                %socket,
                %fault,
                help = "use --socket to name one on another file system",
                "cannot create the socket; commands cannot reach the server"
            );
            Ok((None, path.to_owned()))
        }
    }
}

fn adopt<S, T>(
    sockets: Vec<S>,
    adopt: impl FnMut(S) -> io::Result<T>,
) -> Result<Vec<T>, ServeError> {
    let adopted: io::Result<Vec<T>> = sockets.into_iter().map(adopt).collect();
    adopted.map_err(system("a socket from the service manager"))
}

fn bind(
    what: &'static str,
    flag: &'static str,
    address: SocketAddr,
) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::Bind {
        what,
        address: address.to_string(),
        flag,
        source,
    }
}

/// Sockets for both families if the address is `[::]`, or for IPv4 alone on systems without IPv6.
async fn bind_udp(address: SocketAddr) -> io::Result<Vec<UdpSocket>> {
    let everywhere = IpAddr::from(std::net::Ipv6Addr::UNSPECIFIED);
    let v4 = SocketAddr::from(([0, 0, 0, 0], address.port()));
    match UdpSocket::bind(address).await {
        Ok(socket) if address.ip() == everywhere => {
            let port = socket.local_addr()?.port();
            // If it is in use, the first socket has both families.
            let second = UdpSocket::bind(SocketAddr::new(v4.ip(), port)).await.ok();
            Ok([Some(socket), second].into_iter().flatten().collect())
        }
        Ok(socket) => Ok(vec![socket]),
        Err(_) if address.ip() == everywhere => Ok(vec![UdpSocket::bind(v4).await?]),
        Err(fault) => Err(fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, Surroundings};

    #[tokio::test]
    async fn all_addresses_in_use_are_named_at_once() {
        let taken = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (one, other) = (taken(), taken());
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = |socket: &std::net::TcpListener| Some(socket.local_addr().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::load(Overrides::default(), &Surroundings::of_this_process());
        config.socket = directory.path().join("s");
        config.listen.http = address(&one);
        config.listen.https = address(&other);
        config.listen.stun = Some(udp.local_addr().unwrap());
        config.metrics = None;
        let refused = Listeners::bind(&config, Sockets::default()).await;
        let text = refused.map(|_| ()).unwrap_err().to_string();
        for (what, flag) in [
            ("HTTP", "--http"),
            ("HTTPS", "--https"),
            ("STUN (UDP)", "--stun"),
        ] {
            let begin = format!("cannot listen on {what} 127.0.0.1:");
            assert!(text.contains(&begin) && text.contains(flag), "{text}");
        }
        config.listen.https = None;
        config.listen.stun = None;
        let refused = Listeners::bind(&config, Sockets::default()).await;
        let fault = refused.map(|_| ()).unwrap_err();
        assert!(
            matches!(fault, ServeError::Bind { what: "HTTP", .. }),
            "{fault}"
        );
    }
}
