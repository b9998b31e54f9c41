//! Rates of sources that anyone can forge, in a table of a fixed size.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::source::Source;

/// Cells of the table; 8 bytes each.
const CELLS: usize = 2048;

/// Requests are counted for so long, and then anew.
const WINDOW: Duration = Duration::from_secs(1);

/// How many times the requests of a narrow group its wide group may send: a /48 is a site with a few networks, or
/// that of a provider whose customers have a /64 each and are not all active in the same second.
const WIDE: u32 = 4;

/// Requests per second and source, for requests such as UDP packets whose source anyone can forge.
///
/// A list of sources would fill up with forged ones, and then it would have to forget real ones, refuse all that are
/// not listed, or let them all pass. This table has no entries that could be used up: a source is counted in the cell
/// to which its hash leads, together with those that lead there by chance. One source never gets more than its rate,
/// so nobody is flooded with answers. Forged sources keep a real one out only if there are some 2048 times the rate
/// of one source in a second. The hash has a random key, another one in each second, so that nobody can aim at a cell.
#[derive(Debug)]
pub struct Sketch {
    most: u32,
    key: RandomState,
    since: Duration,
    /// Requests of narrow and of wide groups.
    cells: Box<[(u32, u32)]>,
}

impl Sketch {
    /// At most `most` requests per second for each narrow group, and four times as many for each wide one.
    pub fn new(most: u32) -> Self {
        Self {
            most,
            key: RandomState::new(),
            since: Duration::ZERO,
            cells: vec![(0, 0); CELLS].into(),
        }
    }

    /// Counts a request. Returns false if its source has sent too many. `now` is the time since any fixed moment.
    pub fn take(&mut self, source: Source, now: Duration) -> bool {
        if now.saturating_sub(self.since) >= WINDOW {
            self.since = now;
            self.key = RandomState::new();
            self.cells.fill((0, 0));
        }
        let at = self.cell(source.narrow());
        let Some((count, _)) = self.cells.get_mut(at) else {
            return false;
        };
        *count = count.saturating_add(1);
        // What is refused is not charged to the site.
        if *count > self.most {
            return false;
        }
        if source.narrow().is_ipv4() {
            return true;
        }
        let at = self.cell(source.wide());
        let Some((_, count)) = self.cells.get_mut(at) else {
            return false;
        };
        *count = count.saturating_add(1);
        *count <= self.most.saturating_mul(WIDE)
    }

    fn cell(&self, group: std::net::IpAddr) -> usize {
        let hash = self.key.hash_one(group);
        let cells = u64::try_from(CELLS).unwrap_or(u64::MAX);
        let cell = hash.checked_rem(cells).unwrap_or_default();
        usize::try_from(cell).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    fn taken(sketch: &mut Sketch, sources: impl Iterator<Item = String>, now: Duration) -> usize {
        sources
            .filter(|text| sketch.take(source(text), now))
            .count()
    }

    #[test]
    fn a_source_has_its_rate_in_each_second() {
        let mut sketch = Sketch::new(5);
        let many = || (0..50).map(|_| "192.0.2.1".to_owned());
        assert_eq!(taken(&mut sketch, many(), NOW), 5);
        assert_eq!(taken(&mut sketch, many(), NOW + WINDOW / 2), 0);
        assert_eq!(taken(&mut sketch, many(), NOW + WINDOW), 5);
    }

    #[test]
    fn many_networks_of_one_site_have_a_rate_together() {
        let mut sketch = Sketch::new(5);
        let site = (0..1000).map(|at| format!("2001:db8:1:{at:x}::1"));
        assert_eq!(taken(&mut sketch, site, NOW), 20);
        // One network leaves room for the others of its site.
        let mut sketch = Sketch::new(5);
        let one = |_| "2001:db8:2:1::1".to_owned();
        assert_eq!(taken(&mut sketch, (0..1000).map(one), NOW), 5);
        let others = (2..12).map(|at| format!("2001:db8:2:{at:x}::1"));
        assert!(taken(&mut sketch, others, NOW) > 5);
    }

    #[test]
    fn forged_sources_keep_nobody_out() {
        let mut sketch = Sketch::new(50);
        let forged = (0..20_000).map(|at| format!("10.{}.{}.1", at / 250, at % 250));
        assert!(taken(&mut sketch, forged, NOW) > 19_000);
        for host in 1..200 {
            assert!(sketch.take(source(&format!("192.0.2.{host}")), NOW));
        }
        // Nor do they lift the limit for one.
        let many = (0..1000).map(|_| "198.51.100.1".to_owned());
        assert!(taken(&mut sketch, many, NOW) <= 50);
    }
}
