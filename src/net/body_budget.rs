//! Memory budget for request bodies being received, shared by all control connections.
//!
//! Anyone can open a control connection and send half of a body. All bodies share one budget. When it is used up, the
//! client that holds more than the one that needs room, and the most, loses its oldest unfinished body. If there is none,
//! it is the oldest of all: bodies of real clients arrive within a few round trips, so the oldest is the one that
//! stalled. Bounded by the bytes given to [`BodyBudget::new`], and by the limits on connections and
//! on requests per connection.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::Body as HttpBody;
use tokio::sync::oneshot;

use crate::net::body::ReadError;
use crate::net::gate::Holder;

/// Memory budget for the bodies being received.
#[derive(Debug)]
pub struct BodyBudget(Mutex<BudgetState>);

#[derive(Debug)]
struct BudgetState {
    total: usize,
    free: usize,
    /// Bodies being received, by their sequence number.
    arriving: BTreeMap<u64, Arriving>,
    begun: u64,
}

#[derive(Debug)]
struct Arriving {
    bytes: usize,
    client: Holder,
    /// Dropped when the body is evicted.
    _stay: oneshot::Sender<()>,
}

impl BodyBudget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self(Mutex::new(BudgetState {
            total: bytes,
            free: bytes,
            arriving: BTreeMap::new(),
            begun: 0,
        }))
    }

    /// Reads a whole body of at most `max_bytes` within `deadline`, which is charged to `client`.
    /// Memory grows with the bytes received, not with the declared length. The reservation is released when
    /// the body is complete, because the caller parses it at once. Not cancel safe: bytes already read are lost.
    ///
    /// # Errors
    /// [`ReadError`]; `Crowded` when the body was evicted for newer ones.
    pub async fn read<B: HttpBody>(
        &self,
        body: B,
        client: Holder,
        max_bytes: usize,
        deadline: Duration,
    ) -> Result<Bytes, ReadError> {
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > max_bytes {
            return Err(ReadError::TooLarge);
        }
        let (reservation, leave) = self.enter(client);
        let read = read_into(body, max_bytes, &reservation);
        tokio::select! {
            biased;
            _ = leave => Err(ReadError::Crowded),
            read = tokio::time::timeout(deadline, read) => read.unwrap_or(Err(ReadError::Timeout)),
        }
    }

    fn enter(&self, client: Holder) -> (Reservation<'_>, oneshot::Receiver<()>) {
        let (stay, leave) = oneshot::channel();
        let mut shared = self.lock();
        let number = shared.begun;
        shared.begun = number.saturating_add(1);
        let arriving = Arriving {
            bytes: 0,
            client,
            _stay: stay,
        };
        shared.arriving.insert(number, arriving);
        let bodies = self;
        (Reservation { bodies, number }, leave)
    }

    /// A poisoned lock is safe to use: the totals are always updated together.
    fn lock(&self) -> MutexGuard<'_, BudgetState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BudgetState {
    /// The body that is evicted for that with this number, which is to hold `wanted` bytes.
    fn gives_way_to(&self, number: u64, wanted: usize) -> Option<u64> {
        let own = self.arriving.get(&number)?.client;
        let others = self.arriving.iter();
        let others = || others.clone().filter(|(other, _)| **other != number);
        // Bytes and oldest body of each client.
        let mut clients: BTreeMap<Holder, (usize, Option<u64>)> = BTreeMap::new();
        clients.insert(own, (wanted, None));
        for (other, arriving) in others().filter(|(_, other)| other.bytes > 0) {
            let (bytes, oldest) = clients.entry(arriving.client).or_default();
            *bytes = bytes.saturating_add(arriving.bytes);
            oldest.get_or_insert(*other);
        }
        let needs = clients.get(&own).map_or(wanted, |(bytes, _)| *bytes);
        let larger = clients.values().filter(|(bytes, _)| *bytes >= needs);
        let largest = larger.filter_map(|(bytes, oldest)| Some((*bytes, Reverse((*oldest)?))));
        let oldest = || others().find(|(_, other)| other.bytes > 0);
        match largest.max() {
            Some((_, Reverse(number))) => Some(number),
            None => oldest().map(|(number, _)| *number),
        }
    }

    fn leave(&mut self, number: u64) {
        if let Some(gone) = self.arriving.remove(&number) {
            self.free = self.free.saturating_add(gone.bytes);
        }
    }
}

/// Share of the budget of one body; released when dropped.
struct Reservation<'a> {
    bodies: &'a BodyBudget,
    number: u64,
}

impl Reservation<'_> {
    /// Grows the reservation to `bytes`, evicting older bodies if needed. False when there is no room even then.
    fn grow_to(&self, bytes: usize) -> bool {
        let mut shared = self.bodies.lock();
        if bytes > shared.total {
            return false;
        }
        loop {
            let Some(own) = shared.arriving.get(&self.number).map(|own| own.bytes) else {
                return false;
            };
            let more = bytes.saturating_sub(own);
            if let Some(free) = shared.free.checked_sub(more) {
                shared.free = free;
                if let Some(own) = shared.arriving.get_mut(&self.number) {
                    own.bytes = own.bytes.max(bytes);
                }
                return true;
            }
            let Some(surplus) = shared.gives_way_to(self.number, bytes) else {
                return false;
            };
            shared.leave(surplus);
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.bodies.lock().leave(self.number);
    }
}

async fn read_into<B: HttpBody>(
    body: B,
    max_bytes: usize,
    reservation: &Reservation<'_>,
) -> Result<Bytes, ReadError> {
    let mut body = pin!(body);
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(mut data) = frame.map_err(|_| ReadError::Broken)?.into_data() else {
            continue;
        };
        let wanted = whole.len().saturating_add(data.remaining());
        if wanted > max_bytes {
            return Err(ReadError::TooLarge);
        }
        if wanted > whole.capacity() {
            // Doubles each time, so that a body in many pieces is not copied for each piece.
            let capacity = whole
                .capacity()
                .saturating_mul(2)
                .min(max_bytes)
                .max(wanted);
            if !reservation.grow_to(capacity) {
                return Err(ReadError::Crowded);
            }
            whole.reserve_exact(capacity.saturating_sub(whole.len()));
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            let length = chunk.len();
            whole.extend_from_slice(chunk);
            data.advance(length);
        }
    }
    Ok(Bytes::from(whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::body::Body;
    use http_body_util::Full;
    use std::future::Future;

    const SOON: Duration = Duration::from_secs(5);

    fn client(mark: u8) -> Holder {
        Holder::new("client", [mark; 32])
    }

    fn full(length: usize) -> Full<Bytes> {
        Full::new(Bytes::from(vec![0; length]))
    }

    /// A body that sends `length` bytes and then stalls.
    fn stalled(length: usize) -> Body {
        Body::stream(move |sender| async move {
            sender.send(Bytes::from(vec![0; length])).await;
            std::future::pending().await
        })
    }

    #[tokio::test(start_paused = true)]
    async fn reading_stops_at_the_limit_and_at_the_deadline_and_gives_its_room_back() {
        let bodies = BodyBudget::new(100);
        let read = bodies.read(full(10), client(1), 10, SOON).await;
        assert_eq!(read.map(|bytes| bytes.len()), Ok(10));
        for (body, fault) in [
            (Body::from(vec![0; 11]), ReadError::TooLarge),
            (stalled(11), ReadError::TooLarge),
            (stalled(10), ReadError::Timeout),
        ] {
            assert_eq!(bodies.read(body, client(1), 10, SOON).await, Err(fault));
        }
        assert_eq!(bodies.lock().free, 100);
        assert!(bodies.lock().arriving.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_body_is_evicted() {
        let bodies = BodyBudget::new(100);
        let first = bodies.read(stalled(60), client(1), 60, SOON);
        let second = bodies.read(stalled(30), client(2), 60, SOON);
        let third = async {
            tokio::task::yield_now().await;
            bodies.read(full(50), client(3), 60, SOON).await
        };
        let (first, second, third) = tokio::join!(biased; first, second, third);
        assert_eq!(first, Err(ReadError::Crowded));
        assert_eq!(second, Err(ReadError::Timeout));
        assert_eq!(third.map(|bytes| bytes.len()), Ok(50));
        assert_eq!(bodies.lock().free, 100);
    }

    #[tokio::test(start_paused = true)]
    async fn the_client_with_the_most_loses_its_oldest_body_and_not_the_oldest_client() {
        let bodies = BodyBudget::new(100);
        let small = bodies.read(stalled(20), client(1), 60, SOON);
        let greedy = bodies.read(stalled(40), client(2), 60, SOON);
        let again = bodies.read(stalled(40), client(2), 60, SOON);
        let late = async {
            tokio::task::yield_now().await;
            bodies.read(full(30), client(3), 60, SOON).await
        };
        let more = async {
            tokio::task::yield_now().await;
            bodies.read(full(50), client(2), 60, SOON).await
        };
        let (small, greedy, again, late, more) =
            tokio::join!(biased; small, greedy, again, late, more);
        assert_eq!(small, Err(ReadError::Timeout));
        assert_eq!(
            (greedy, again),
            (Err(ReadError::Crowded), Err(ReadError::Crowded))
        );
        assert_eq!(late.map(|bytes| bytes.len()), Ok(30));
        assert_eq!(more.map(|bytes| bytes.len()), Ok(50));
    }

    #[tokio::test(start_paused = true)]
    async fn small_stalled_bodies_of_many_clients_keep_no_larger_one_out() {
        let bodies = BodyBudget::new(100);
        let stall = async {
            let stalled = (0..10).map(|mark| bodies.read(stalled(10), client(mark), 60, SOON));
            let mut stalled: Vec<_> = stalled.map(Box::pin).collect();
            std::future::poll_fn(|context| {
                let mut evicted = 0;
                for body in &mut stalled {
                    evicted += usize::from(body.as_mut().poll(context).is_ready());
                }
                std::task::Poll::Ready(evicted)
            })
            .await;
            let read = bodies.read(full(30), client(99), 60, SOON).await;
            read.map(|bytes| bytes.len())
        };
        assert_eq!(stall.await, Ok(30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_fits_is_refused_and_evicts_no_other() {
        let bodies = BodyBudget::new(100);
        let other = bodies.read(stalled(60), client(1), 60, SOON);
        let too_long = bodies.read(full(101), client(2), 200, SOON);
        let (other, too_long) = tokio::join!(biased; other, too_long);
        assert_eq!(other, Err(ReadError::Timeout));
        assert_eq!(too_long, Err(ReadError::Crowded));
        assert_eq!(bodies.lock().free, 100);
    }
}
