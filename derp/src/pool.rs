//! Memory pool that queued packets and partial frames of all connections share. Does no I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A memory budget in bytes. Clones share it.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    total: usize,
    used: AtomicUsize,
}

impl Pool {
    /// A pool of `total` bytes.
    pub fn new(total: usize) -> Self {
        Pool(Arc::new(Budget {
            total,
            used: AtomicUsize::new(0),
        }))
    }

    /// Bytes that are reserved.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Bytes that are free.
    pub fn free(&self) -> usize {
        self.0.total.saturating_sub(self.used())
    }

    /// Reserves `bytes` if at least `spare` bytes stay free. Dropping the reservation frees them.
    pub fn reserve(&self, bytes: usize, spare: usize) -> Option<Reservation> {
        let mut reservation = Reservation {
            pool: self.clone(),
            bytes: 0,
        };
        reservation.grow_to(bytes, spare).then_some(reservation)
    }
}

/// Bytes reserved from a [`Pool`]; freed on drop.
#[derive(Debug)]
pub struct Reservation {
    pool: Pool,
    bytes: usize,
}

impl Reservation {
    /// Size of the reservation in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Grows to `bytes` if at least `spare` bytes stay free. Otherwise returns false and changes
    /// nothing.
    pub fn grow_to(&mut self, bytes: usize, spare: usize) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes) else {
            return true;
        };
        let limit = self.pool.0.total.saturating_sub(spare);
        let take = |used: usize| used.checked_add(more).filter(|used| *used <= limit);
        // Relaxed is enough: the counter protects no other memory.
        let taken = self
            .pool
            .0
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok();
        if taken {
            self.bytes = bytes;
        }
        taken
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_are_freed_and_never_exceed_the_total() {
        let pool = Pool::new(100);
        let first = pool.reserve(60, 0).unwrap();
        assert!(pool.reserve(41, 0).is_none());
        assert!(pool.reserve(31, 10).is_none());
        let mut second = pool.reserve(30, 10).unwrap();
        assert_eq!((pool.used(), pool.free()), (90, 10));
        assert!(!second.grow_to(41, 0));
        assert!(second.grow_to(40, 0) && second.grow_to(5, 0));
        assert_eq!((second.bytes(), pool.free()), (40, 0));
        drop(first);
        drop(second);
        assert_eq!(pool.used(), 0);
    }
}
