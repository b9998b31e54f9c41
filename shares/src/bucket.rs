//! Token buckets for rate limits, alone or one per source.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::source::Source;

/// A token bucket: a burst of tokens at once, and a fixed rate after that.
///
/// `now` is the time since any fixed moment and must not go backwards.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    /// Tokens that come back in each period; not zero.
    tokens: u32,
    /// In nanoseconds.
    period: u64,
    /// Time in which an empty bucket fills up.
    fill_time: Duration,
    /// When the bucket is full again.
    full_at: Duration,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens that gets one back each `interval`.
    pub fn new(burst: u32, interval: Duration) -> Self {
        Self::with_rate(burst, 1, interval)
    }

    /// A full bucket of `burst` bytes that gets `bytes_per_second` back; none if that is zero, which
    /// means no limit.
    pub fn for_bytes(bytes_per_second: u32, burst: u32) -> Option<Self> {
        let second = Duration::from_secs(1);
        (bytes_per_second > 0).then(|| Self::with_rate(burst, bytes_per_second, second))
    }

    fn with_rate(burst: u32, tokens: u32, period: Duration) -> Self {
        let mut bucket = TokenBucket {
            tokens,
            period: u64::try_from(period.as_nanos()).unwrap_or(u64::MAX),
            fill_time: Duration::ZERO,
            full_at: Duration::ZERO,
        };
        bucket.fill_time = bucket.time_for(u64::from(burst));
        bucket
    }

    /// Takes one token. Returns false, and takes none, if the bucket is empty.
    pub fn take(&mut self, now: Duration) -> bool {
        let full_at = self.full_at.max(now).saturating_add(self.time_for(1));
        let taken = full_at.saturating_sub(self.fill_time) <= now;
        if taken {
            self.full_at = full_at;
        }
        taken
    }

    /// Whether no token is missing: a new bucket is as good as this one.
    pub fn is_full(&self, now: Duration) -> bool {
        self.full_at <= now
    }

    /// Takes `tokens`, into debt if need be. Returns the time at which the bucket is out of debt; it
    /// is not later than `now` if there was no debt. Debts are paid in the order of the charges.
    pub fn charge(&mut self, tokens: usize, now: Duration) -> Duration {
        let cost = self.time_for(u64::try_from(tokens).unwrap_or(u64::MAX));
        self.full_at = self.full_at.max(now).saturating_add(cost);
        self.full_at.saturating_sub(self.fill_time)
    }

    /// Time in which so many tokens come back.
    fn time_for(&self, tokens: u64) -> Duration {
        let nanoseconds = tokens.saturating_mul(self.period);
        let nanoseconds = nanoseconds.checked_div(u64::from(self.tokens));
        Duration::from_nanos(nanoseconds.unwrap_or(u64::MAX))
    }
}

/// A [`TokenBucket`] that is shared by reference.
#[derive(Debug)]
pub struct SharedTokenBucket(Mutex<TokenBucket>);

impl SharedTokenBucket {
    /// See [`TokenBucket::new`].
    pub fn new(burst: u32, interval: Duration) -> Self {
        SharedTokenBucket(Mutex::new(TokenBucket::new(burst, interval)))
    }

    /// See [`TokenBucket::take`].
    pub fn take(&self, now: Duration) -> bool {
        // A bucket is valid at any moment, so a panic elsewhere cannot spoil it.
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.take(now)
    }
}

/// Token buckets of many sources. Remembers at most a fixed number of sources; all others share one bucket.
#[derive(Debug)]
pub struct Buckets<K> {
    fresh: TokenBucket,
    most: usize,
    sources: BTreeMap<K, TokenBucket>,
    others: TokenBucket,
}

impl<K: Ord> Buckets<K> {
    /// A bucket of `burst` tokens that gets one back each `interval`, for each of at most `most` sources.
    pub fn new(burst: u32, interval: Duration, most: usize) -> Self {
        let fresh = TokenBucket::new(burst, interval);
        Self {
            fresh,
            most,
            sources: BTreeMap::new(),
            others: fresh,
        }
    }

    /// Takes a token of `source`. Returns false, and takes none, if its bucket is empty.
    pub fn take(&mut self, source: K, now: Duration) -> bool {
        if let Some(bucket) = self.sources.get_mut(&source) {
            return bucket.take(now);
        }
        if self.sources.len() >= self.most {
            // Forgetting a full bucket changes nothing.
            self.sources.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.sources.len() >= self.most {
            return self.others.take(now);
        }
        let mut bucket = self.fresh;
        let is_taken = bucket.take(now);
        self.sources.insert(source, bucket);
        is_taken
    }

    /// Whether a source has a token.
    pub fn has(&self, source: &K, now: Duration) -> bool {
        let bucket = self.sources.get(source);
        bucket.is_none_or(|bucket| TokenBucket::take(&mut bucket.clone(), now))
    }

    /// [`Buckets::take`], but where too many sources are remembered, the one whose bucket is the fullest is forgotten. For
    /// sources of which anyone can have many: they can use up no bucket that others share.
    pub fn take_or_forget(&mut self, source: K, now: Duration) -> bool
    where
        K: Clone,
    {
        if self.sources.len() >= self.most && !self.sources.contains_key(&source) {
            let by_rest = |(_, bucket): &(&K, &TokenBucket)| bucket.full_at;
            let fullest = self.sources.iter().min_by_key(by_rest);
            let fullest = fullest.map(|(source, _)| source.clone());
            fullest.map(|fullest| self.sources.remove(&fullest));
        }
        self.take(source, now)
    }

    /// Number of sources that are remembered.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether no source is remembered.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }
}

/// [`Buckets`] of the addresses of clients, shared by reference: one for each IPv4 address or IPv6 /48.
#[derive(Debug)]
pub struct AddressBuckets(Mutex<Buckets<IpAddr>>);

impl AddressBuckets {
    /// See [`Buckets::new`].
    pub fn new(burst: u32, interval: Duration, most: usize) -> Self {
        Self(Mutex::new(Buckets::new(burst, interval, most)))
    }

    /// See [`Buckets::take`].
    pub fn take(&self, address: IpAddr, now: Duration) -> bool {
        // Buckets are valid at any moment, so a panic elsewhere cannot spoil them.
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.take(Source::of(address).wide(), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn a_burst_of_bytes_passes_and_then_the_rate_applies() {
        let mut bucket = TokenBucket::for_bytes(1000, 500).unwrap();
        assert!(bucket.charge(500, NOW) <= NOW);
        assert_eq!(bucket.charge(100, NOW), NOW + Duration::from_millis(100));
        assert_eq!(bucket.charge(100, NOW), NOW + Duration::from_millis(200));
        let later = NOW + Duration::from_secs(10);
        assert!(bucket.charge(500, later) <= later);
        assert!(bucket.charge(1, later) > later);
    }

    #[test]
    fn a_burst_passes_and_then_one_each_interval() {
        let bucket = SharedTokenBucket::new(2, Duration::from_secs(1));
        let at = Duration::from_millis;
        assert!(bucket.take(at(10_000)) && bucket.take(at(10_000)));
        assert!(!bucket.take(at(10_900)));
        assert!(bucket.take(at(11_000)));
        assert!(!bucket.take(at(11_100)));
        assert!(bucket.take(at(12_000)));
        assert!(bucket.take(at(60_000)) && bucket.take(at(60_000)) && !bucket.take(at(60_000)));
    }

    #[test]
    fn zero_bytes_per_second_means_no_limit() {
        assert!(TokenBucket::for_bytes(0, 500).is_none());
    }

    #[test]
    fn the_rate_holds_over_a_long_time() {
        let mut bucket = TokenBucket::for_bytes(70_000, 65_600).unwrap();
        let (mut now, mut taken) = (NOW, 0_u64);
        while now < NOW + Duration::from_secs(60) {
            now = now.max(bucket.charge(1400, now));
            taken += 1400;
        }
        assert!((4_200_000..=4_270_000).contains(&taken), "{taken}");
    }

    #[test]
    fn each_source_has_a_bucket_and_what_is_remembered_is_bounded() {
        let mut buckets = Buckets::new(1, Duration::from_secs(1), 2);
        assert!(buckets.take('a', NOW) && !buckets.take('a', NOW));
        assert!(buckets.take('b', NOW));
        // Those beyond the bound share one bucket.
        assert!(buckets.take('c', NOW) && !buckets.take('d', NOW));
        assert_eq!(buckets.len(), 2);
        let later = NOW + Duration::from_secs(1);
        assert!(buckets.take('d', later));
        assert_eq!(buckets.len(), 1);
    }

    #[test]
    fn however_many_sources_there_are_a_new_one_has_its_tokens() {
        let mut buckets = Buckets::new(2, Duration::from_secs(10), 4);
        for source in 0..100 {
            assert!(buckets.has(&source, NOW));
            assert!(buckets.take_or_forget(source, NOW) && buckets.take_or_forget(source, NOW));
            assert!(!buckets.has(&source, NOW));
            assert!(!buckets.take_or_forget(source, NOW));
            assert!(buckets.len() <= 4);
        }
    }
}
