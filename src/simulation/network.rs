//! The network: lines that delay, stall and break, and never lose or reorder a byte before they break, as TCP does.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::net::listener::Listener;
use crate::net::stream::Stream;
use crate::store::Chance;
use crate::supervise::Tasks;

/// Longest delay of a piece on its way.
const DELAY: u64 = 120;
/// Bytes on the way in one direction.
const WINDOW: usize = 16 * 1024;
/// How long a client waits for a connection that is not answered.
const CONNECT: Duration = Duration::from_secs(1);

/// How a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    Stalled,
    Broken,
}

/// The lines of all devices. Clones are the same network.
#[derive(Clone)]
pub(super) struct Network(Arc<Mutex<Inner>>, Tasks);

struct Inner {
    chance: Chance,
    door: Option<mpsc::Sender<(Stream, SocketAddr)>>,
    lines: Vec<(usize, watch::Sender<Health>)>,
    /// Devices whose network is away: what they send goes nowhere.
    away: Vec<usize>,
}

/// Where connections arrive.
pub(super) struct Door(tokio::sync::Mutex<mpsc::Receiver<(Stream, SocketAddr)>>);

impl Listener for Door {
    type Stream = Stream;

    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self.0.lock().await.recv().await {
            Some((stream, source)) => Ok((stream, Some(source))),
            None => std::future::pending().await,
        }
    }
}

impl Network {
    pub(super) fn new(seed: u64, tasks: Tasks) -> Self {
        let inner = Inner {
            chance: Chance::new(seed),
            door: None,
            lines: Vec::new(),
            away: Vec::new(),
        };
        Self(Arc::new(Mutex::new(inner)), tasks)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic while locked")
    }

    /// Begins to listen.
    pub(super) fn open(&self) -> Door {
        let (sender, receiver) = mpsc::channel(64);
        self.inner().door = Some(sender);
        Door(receiver.into())
    }

    /// Ends to listen; connections are refused.
    pub(super) fn close(&self) {
        self.inner().door = None;
    }

    /// A connection from a device to the server.
    pub(super) async fn connect(&self, owner: usize, source: SocketAddr) -> io::Result<Stream> {
        let door = {
            let inner = self.inner();
            inner.door.clone().filter(|_| !inner.away.contains(&owner))
        };
        let Some(door) = door else {
            sleep(CONNECT).await;
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let (client, near) = duplex(WINDOW);
        let (far, server) = duplex(WINDOW);
        let (health, seen) = watch::channel(Health::Good);
        let chances = {
            let mut inner = self.inner();
            inner.lines.retain(|(_, line)| line.receiver_count() > 0);
            inner.lines.push((owner, health));
            [inner.chance.next(), inner.chance.next()].map(Chance::new)
        };
        self.1.spawn("line", carry((near, far), seen, chances));
        let server: Stream = Box::new(server);
        if door.send((server, source)).await.is_err() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(Box::new(client))
    }

    fn set(&self, owner: Option<usize>, health: Health) {
        for (of, line) in &self.inner().lines {
            if owner.is_none_or(|owner| owner == *of) && *line.borrow() != Health::Broken {
                line.send_replace(health);
            }
        }
    }

    /// Breaks the lines of a device, or of all.
    pub(super) fn cut(&self, owner: Option<usize>) {
        self.set(owner, Health::Broken);
    }

    /// Takes a device off the network, or brings it back. What is on the way waits, and no end of a connection is seen.
    pub(super) fn set_away(&self, owner: usize, is_away: bool) {
        self.inner().away.retain(|other| *other != owner);
        if is_away {
            self.inner().away.push(owner);
        }
        self.set(
            Some(owner),
            match is_away {
                true => Health::Stalled,
                false => Health::Good,
            },
        );
    }
}

/// Carries both directions of a line until it breaks.
async fn carry(
    (near, far): (DuplexStream, DuplexStream),
    mut health: watch::Receiver<Health>,
    [there, back]: [Chance; 2],
) {
    let ((near_reads, near_writes), (far_reads, far_writes)) = (split(near), split(far));
    let both = async {
        tokio::join!(
            biased;
            pass(near_reads, far_writes, health.clone(), there),
            pass(far_reads, near_writes, health.clone(), back),
        );
    };
    let mut end = health.clone();
    tokio::select! {
        biased;
        _ = end.wait_for(|health| *health == Health::Broken) => {}
        () = both => {}
    }
    health.mark_unchanged();
}

async fn pass(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    mut health: watch::Receiver<Health>,
    mut chance: Chance,
) {
    let mut piece = vec![0; WINDOW];
    loop {
        let most = match chance.one_in(4) {
            true => 1 + chance.below(200),
            false => WINDOW,
        };
        let read = from.read(&mut piece[..most]).await;
        sleep(Duration::from_millis(1 + chance.next() % DELAY)).await;
        let _ = health.wait_for(|health| *health == Health::Good).await;
        match read {
            Ok(0) | Err(_) => break,
            Ok(length) if to.write_all(&piece[..length]).await.is_err() => break,
            Ok(_) => {}
        }
    }
    let _ = to.shutdown().await;
}
