//! Listening sockets. Each accepted connection passes a [`Gate`] and is served in a task of its own.

use std::fs;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use hearth_shares::SharedTokenBucket;
use socket2::{SockRef, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket, UnixListener, UnixStream};
use tokio::time::Instant;

use crate::net::gate::{Gate, Ticket};
use crate::net::upgrade::Continuation;
use crate::shutdown::Shutdown;
use crate::supervise::Tasks;

/// Listen queue of a socket; the kernel may allow less (`net.core.somaxconn`).
/// After an outage all devices reconnect at once, and those that find no room retry after seconds.
const BACKLOG: u32 = 1024;

/// First backoff after a failed accept, when files or memory ran out; doubles up to [`MAX_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Time between two warnings about failed accepts, which strangers can cause.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// `TCP_USER_TIMEOUT`: how long sent data can stay unacknowledged before the connection is closed.
/// Source: 15 s in tailscale `cmd/derper/derper.go`; home lines get twice that.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Idle time before the first TCP keepalive probe.
/// Source: 10 min in tailscale `cmd/derper/derper.go`.
const KEEPALIVE: Duration = Duration::from_secs(10 * 60);

/// Binds a TCP address and listens on it.
///
/// `[::]` means both address families: two sockets where the kernel separates them, one for IPv4 where
/// it has no IPv6.
///
/// # Errors
/// The system error, for example when the address is in use.
///
/// # Panics
/// Outside a tokio runtime with I/O.
pub fn bind_tcp(address: SocketAddr) -> io::Result<Vec<TcpListener>> {
    let everywhere = address.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED);
    match listen(address) {
        Ok(first) if everywhere => {
            let port = first.local_addr()?.port();
            // "In use" means that the first socket covers both families.
            let second = listen((Ipv4Addr::UNSPECIFIED, port).into()).ok();
            Ok([Some(first), second].into_iter().flatten().collect())
        }
        Ok(only) => Ok(vec![only]),
        Err(_) if everywhere => {
            listen((Ipv4Addr::UNSPECIFIED, address.port()).into()).map(|only| vec![only])
        }
        Err(error) => Err(error),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    set_options(&SockRef::from(&socket))?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepted connections inherit these options.
fn set_options(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Takes over a listening TCP socket that another process opened.
///
/// # Errors
/// When the socket does not listen, or the system refuses its options.
///
/// # Panics
/// Outside a tokio runtime with I/O.
pub fn adopt_tcp(socket: std::net::TcpListener) -> io::Result<TcpListener> {
    // Only IP sockets have such an address.
    socket.local_addr()?;
    if !SockRef::from(&socket).is_listener()? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a listening socket",
        ));
    }
    set_options(&SockRef::from(&socket))?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

/// Takes over a UDP socket that another process bound.
///
/// # Errors
/// When it is not a UDP socket, or the system refuses it.
///
/// # Panics
/// Outside a tokio runtime with I/O.
pub fn adopt_udp(socket: std::net::UdpSocket) -> io::Result<UdpSocket> {
    // Only IP sockets have such an address.
    socket.local_addr()?;
    if SockRef::from(&socket).r#type()? != Type::DGRAM {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a UDP socket",
        ));
    }
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Listens on a Unix socket that only the current user can connect to.
///
/// The stale socket of a crashed server is replaced; a socket in use or another kind of file is not.
///
/// # Errors
/// The system error; `AddrInUse` when a server listens on the socket.
///
/// # Panics
/// Outside a tokio runtime with I/O.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file that is not a socket exists",
            ));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)?;
            }
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) => return Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Bound under a temporary name first, so that nobody can connect before its mode is set.
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))?;
    fs::rename(&temporary, path)?;
    Ok(listener)
}

/// A listening socket.
pub trait Listener: Send + 'static {
    /// The connection type.
    type Stream: Send + 'static;

    /// Waits for the next connection, with the address of the peer on TCP. Cancel safe.
    fn accept(&self)
    -> impl Future<Output = io::Result<(Self::Stream, Option<SocketAddr>)>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        let (stream, source) = Self::accept(self).await?;
        // Frames are written whole, so delaying small packets gains nothing.
        stream.set_nodelay(true)?;
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        Ok((stream, Some(source)))
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Option<SocketAddr>)> {
        Ok((Self::accept(self).await?.0, None))
    }
}

/// Handler of each accepted connection.
pub type Serve<S> = Box<dyn Fn(S, Ticket) -> Continuation + Send>;

/// Accepts connections through the gate and serves each in its own task, until the server stops. A connection that is
/// evicted ends at once.
pub async fn accept_all<L: Listener>(
    listener: L,
    gate: Gate,
    shutdown: Shutdown,
    tasks: Tasks,
    serve: Serve<L::Stream>,
) {
    let (began, complaints) = (
        Instant::now(),
        SharedTokenBucket::new(1, COMPLAINT_INTERVAL),
    );
    let mut pause = FIRST_BACKOFF;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.wait() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, source) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_the_peers(&error) => continue,
            Err(error) => {
                // Out of files or memory: freeing them takes time, and the peer waits in the listen queue.
                if complaints.take(began.elapsed()) {
                    tracing::warn!(%error, "cannot accept connections");
                }
                if gate.make_room() {
                    pause = FIRST_BACKOFF;
                }
                tokio::select! {
                    biased;
                    () = shutdown.wait() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = pause.saturating_mul(2).min(MAX_BACKOFF);
                continue;
            }
        };
        pause = FIRST_BACKOFF;
        let place = tokio::select! {
            biased;
            () = shutdown.wait() => return,
            place = gate.enter(source) => place,
        };
        let ticket = place.ticket();
        let served = serve(stream, ticket.clone());
        tasks.spawn("connection", async move {
            tokio::select! {
                biased;
                () = ticket.ended() => tracing::debug!(?ticket, "connection closed to make room"),
                () = served => {}
            }
            drop(place);
        });
        // The connection has its turn before others can take its place.
        tokio::task::yield_now().await;
    }
}

/// Whether the error concerns one connection, which was closed before it was accepted.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotConnected
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::limits::Limits;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn echo(mut stream: TcpStream, _: Ticket) -> Continuation {
        Box::pin(async move {
            let mut byte = [0];
            while let Ok(1) = stream.read(&mut byte).await {
                let _ = stream.write_all(&byte).await;
            }
        })
    }

    async fn works(stream: &mut TcpStream) -> bool {
        if stream.write_all(b"x").await.is_err() {
            return false;
        }
        let mut byte = [0];
        let read = stream.read(&mut byte);
        let read = tokio::time::timeout(Duration::from_millis(200), read).await;
        matches!(read, Ok(Ok(1)))
    }

    #[tokio::test]
    async fn the_unspecified_address_has_both_families() {
        let listeners = bind_tcp("[::]:0".parse().unwrap()).unwrap();
        let port = listeners[0].local_addr().unwrap().port();
        let tasks = Tasks::new();
        let shutdown = Shutdown::new();
        for listener in listeners {
            let gate = Gate::new(&Limits::default(), Arc::default());
            let (shutdown, tasks) = (shutdown.clone(), tasks.clone());
            let accepting = accept_all(listener, gate, shutdown, tasks.clone(), Box::new(echo));
            tasks.spawn("accept", accepting);
        }
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        assert!(works(&mut stream).await);
        drop(stream);
        shutdown.trigger();
        assert!(tasks.finish(Duration::from_secs(4)).await.is_empty());
    }

    #[tokio::test]
    async fn a_socket_of_another_process_is_taken_over_if_it_listens() {
        let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listening.local_addr().unwrap();
        let adopted = adopt_tcp(listening).unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), adopted.accept());
        assert!(client.is_ok());
        let keepalive = SockRef::from(&server.unwrap().0).tcp_keepalive_time();
        assert_eq!(keepalive.unwrap(), KEEPALIVE);
        let silent = socket2::Socket::new(socket2::Domain::IPV4, Type::STREAM, None);
        assert!(adopt_tcp(silent.unwrap().into()).is_err());
        let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::os::fd::OwnedFd::from(listening);
        assert!(adopt_udp(stream.into()).is_err());
        let directory = tempfile::tempdir().unwrap();
        let local = std::os::unix::net::UnixListener::bind(directory.path().join("s")).unwrap();
        assert!(adopt_tcp(std::os::fd::OwnedFd::from(local).into()).is_err());
    }

    #[tokio::test]
    async fn an_evicted_connection_is_closed_and_its_place_given_to_the_next() {
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap().remove(0);
        let address = listener.local_addr().unwrap();
        let limits = Limits {
            connections: 1,
            ..Limits::default()
        };
        let (tasks, gate) = (Tasks::new(), Gate::new(&limits, Arc::default()));
        let accepting = accept_all(
            listener,
            gate.clone(),
            Shutdown::new(),
            tasks.clone(),
            Box::new(echo),
        );
        tasks.spawn("accept", accepting);
        let mut first = TcpStream::connect(address).await.unwrap();
        assert!(works(&mut first).await);
        let mut second = TcpStream::connect(address).await.unwrap();
        assert!(works(&mut second).await);
        let ended = tokio::time::timeout(Duration::from_secs(5), first.read(&mut [0])).await;
        assert!(matches!(ended, Ok(Ok(0) | Err(_))));
        assert_eq!(gate.counts(), (1, 0));
        drop(second);
        while gate.counts() != (0, 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tasks.finish(Duration::ZERO).await;
    }

    #[expect(clippy::disallowed_methods, reason = "a test file may be lost")]
    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth.sock");
        let living = bind_unix(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = bind_unix(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(living);
        let again = bind_unix(&path).unwrap();
        let (client, server) = tokio::join!(UnixStream::connect(&path), again.accept());
        assert!(client.is_ok() && server.is_ok());
        let file = dir.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(bind_unix(&file).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }
}
