//! Pools that make room: when one is full, the source that holds the most gives way.

use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::hash::Hash;

use crate::source::Source;

/// What an entry of a [`Pool`] is charged to: a narrow group within a wide one.
pub trait Group {
    /// A group.
    type Key: Ord + Copy;
    /// The wide group, which is compared first.
    fn wide(&self) -> Self::Key;
    /// The narrow group within it.
    fn narrow(&self) -> Self::Key;
}

impl Group for Source {
    type Key = std::net::IpAddr;

    fn wide(&self) -> Self::Key {
        Source::wide(*self)
    }

    fn narrow(&self) -> Self::Key {
        Source::narrow(*self)
    }
}

/// A source without groups within it, such as a machine key or a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sole<K>(pub K);

impl<K: Ord + Copy + Hash> Group for Sole<K> {
    type Key = K;

    fn wide(&self) -> K {
        self.0
    }

    fn narrow(&self) -> K {
        self.0
    }
}

/// Name of an entry in a [`Pool`]; later entries are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry(u64);

impl Entry {
    /// An entry that the caller has numbered, see [`Pool::enter_as`].
    pub fn numbered(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// A pool of at most so many entries, each charged to a source.
#[derive(Debug)]
pub struct Pool<G> {
    most: usize,
    next: u64,
    entries: BTreeMap<Entry, G>,
}

impl<G: Group> Pool<G> {
    /// A pool of at most `most` entries; zero counts as one.
    pub fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            next: 0,
            entries: BTreeMap::new(),
        }
    }

    /// Adds an entry of `source`. When the pool is full, returns the entry that has made room and is no longer in the pool:
    /// the oldest of the source that holds the most, the new entry included. Of equals, that of the oldest entry.
    /// Takes time proportional to the number of entries when the pool is full.
    pub fn enter(&mut self, source: G) -> (Entry, Option<Entry>) {
        let entry = Entry(self.next);
        self.next = self.next.wrapping_add(1);
        (entry, self.enter_as(entry, source))
    }

    /// [`Pool::enter`] with a number of the caller's, who numbers all entries of this pool, the later the higher.
    pub fn enter_as(&mut self, entry: Entry, source: G) -> Option<Entry> {
        self.entries.insert(entry, source);
        let surplus = (self.entries.len() > self.most).then(|| self.gives_way());
        let surplus = surplus.flatten();
        if let Some(surplus) = surplus {
            self.entries.remove(&surplus);
        }
        surplus
    }

    /// Removes an entry. Returns false if it is not in the pool.
    pub fn leave(&mut self, entry: Entry) -> bool {
        self.entries.remove(&entry).is_some()
    }

    /// The entries with their sources, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Entry, &G)> {
        self.entries.iter().map(|(entry, source)| (*entry, source))
    }

    /// The source of an entry.
    pub fn get(&self, entry: Entry) -> Option<&G> {
        self.entries.get(&entry)
    }

    /// At most `most` entries in the order in which they give way, if none enters meanwhile; only those of sources that
    /// `may` accepts. For pools that are large: it takes hardly longer than to find the first one.
    pub fn give_way_in_turn(&self, most: usize, may: impl Fn(&G) -> bool) -> Vec<Entry> {
        let mut groups: BTreeMap<G::Key, Networks<G::Key>> = BTreeMap::new();
        for (entry, of) in self.iter().filter(|(_, of)| may(of)) {
            let networks = groups.entry(of.wide()).or_default();
            networks.entry(of.narrow()).or_default().push_back(entry);
        }
        let ranks = groups.iter().map(|(wide, networks)| rank(*wide, networks));
        let mut ranks: BinaryHeap<_> = ranks.collect();
        let mut turn = Vec::new();
        while let Some((_, _, wide)) = ranks.pop().filter(|_| turn.len() < most) {
            let Some(networks) = groups.get_mut(&wide) else {
                continue;
            };
            let by_count = |network: &&mut VecDeque<Entry>| {
                (network.len(), std::cmp::Reverse(network.front().copied()))
            };
            let largest = networks.values_mut().max_by_key(by_count);
            if let Some(entry) = largest.and_then(VecDeque::pop_front) {
                turn.push(entry);
                ranks.push(rank(wide, networks));
            }
        }
        turn
    }

    /// Whether an entry is in the pool.
    pub fn contains(&self, entry: Entry) -> bool {
        self.entries.contains_key(&entry)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry that gives way next: the oldest of the narrow group with the most within the wide group with the most.
    pub fn gives_way(&self) -> Option<Entry> {
        let wide = largest(self.entries.iter().map(|(entry, of)| (*entry, of.wide())))?;
        let within = self.entries.iter().filter(|(_, of)| of.wide() == wide);
        let narrow = largest(within.map(|(entry, of)| (*entry, of.narrow())))?;
        let mut oldest = self.entries.iter();
        let oldest = oldest.find(|(_, of)| of.wide() == wide && of.narrow() == narrow);
        oldest.map(|(entry, _)| *entry)
    }

    /// The entry that gives way to one of `newcomer`, for entries that are in service and that a newcomer must not
    /// simply replace: the oldest of the source that holds the most, if that is more than the source of the newcomer
    /// would hold with it. `None` means that the newcomer has to be refused.
    pub fn gives_way_to(&self, newcomer: &G) -> Option<Entry> {
        let entries = || self.entries.iter();
        let sites = entries().map(|(entry, of)| (*entry, of.wide()));
        let (wide, narrow) = match exceeding(sites, newcomer.wide()) {
            Some(wide) => {
                let within = entries().filter(|(_, of)| of.wide() == wide);
                let narrow = largest(within.map(|(entry, of)| (*entry, of.narrow())))?;
                (wide, narrow)
            }
            None => {
                let wide = newcomer.wide();
                let within = entries().filter(|(_, of)| of.wide() == wide);
                let within = within.map(|(entry, of)| (*entry, of.narrow()));
                (wide, exceeding(within, newcomer.narrow())?)
            }
        };
        let mut oldest = entries().filter(|(_, of)| of.wide() == wide && of.narrow() == narrow);
        oldest.next().map(|(entry, _)| *entry)
    }
}

/// The narrow groups of a wide one, each with its entries, the oldest first.
type Networks<K> = BTreeMap<K, VecDeque<Entry>>;

/// The rank of a wide group: the number of its entries, and among equals the older entry.
fn rank<K>(wide: K, networks: &Networks<K>) -> (usize, std::cmp::Reverse<Option<Entry>>, K) {
    let count = networks.values().map(VecDeque::len);
    let oldest = networks.values().filter_map(VecDeque::front).min();
    let count = count.fold(0, usize::saturating_add);
    (count, std::cmp::Reverse(oldest.copied()), wide)
}

/// The number of entries of each group, and its oldest entry.
fn groups<K: Ord + Copy>(entries: impl Iterator<Item = (Entry, K)>) -> BTreeMap<K, (usize, Entry)> {
    let mut groups: BTreeMap<K, (usize, Entry)> = BTreeMap::new();
    for (entry, key) in entries {
        let (count, _) = groups.entry(key).or_insert((0, entry));
        *count = count.saturating_add(1);
    }
    groups
}

/// The group with the most entries; of equals that with the oldest entry.
fn largest<K: Ord + Copy>(entries: impl Iterator<Item = (Entry, K)>) -> Option<K> {
    let by_count = groups(entries)
        .into_iter()
        .max_by_key(|(_, (count, oldest))| (*count, std::cmp::Reverse(*oldest)));
    by_count.map(|(key, _)| key)
}

/// The largest group other than `own`, if it has more entries than `own` would have with one more.
fn exceeding<K: Ord + Copy>(entries: impl Iterator<Item = (Entry, K)>, own: K) -> Option<K> {
    let mut groups = groups(entries);
    let held = groups.remove(&own).map_or(0, |(count, _)| count);
    let by_count = groups
        .into_iter()
        .max_by_key(|(_, (count, oldest))| (*count, std::cmp::Reverse(*oldest)));
    let (key, (count, _)) = by_count?;
    (count > held.saturating_add(1)).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv6Addr};

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    #[test]
    fn the_oldest_of_the_source_with_the_most_gives_way() {
        let mut pool = Pool::new(3);
        let (first, _) = pool.enter(source("192.0.2.1"));
        let (greedy, _) = pool.enter(source("192.0.2.2"));
        pool.enter(source("192.0.2.2"));
        let (_, gone) = pool.enter(source("192.0.2.3"));
        assert_eq!(gone, Some(greedy));
        assert!(pool.contains(first) && pool.len() == 3);
        // All hold one: the oldest entry goes.
        let (_, gone) = pool.enter(source("192.0.2.4"));
        assert_eq!(gone, Some(first));
        assert!(!pool.leave(first));
    }

    #[test]
    fn a_source_that_asks_for_more_loses_its_own() {
        let mut pool = Pool::new(2);
        let (other, _) = pool.enter(source("192.0.2.1"));
        let (own, _) = pool.enter(source("192.0.2.2"));
        assert_eq!(pool.enter(source("192.0.2.2")).1, Some(own));
        assert!(pool.contains(other));
    }

    #[test]
    fn many_networks_of_one_site_count_as_one() {
        let mut pool = Pool::new(3);
        let (home, _) = pool.enter(source("2001:db8:2::1"));
        let (first, _) = pool.enter(source("2001:db8:1:1::1"));
        pool.enter(source("2001:db8:1:2::1"));
        assert_eq!(pool.enter(source("2001:db8:1:3::1")).1, Some(first));
        assert!(pool.contains(home));
    }

    #[test]
    fn what_is_in_service_gives_way_only_to_a_source_that_holds_less() {
        let mut pool = Pool::new(9);
        let (first, _) = pool.enter(source("192.0.2.1"));
        let one = source("192.0.2.9");
        assert_eq!(pool.gives_way_to(&one), None);
        pool.enter(source("192.0.2.1"));
        assert_eq!(pool.gives_way_to(&one), Some(first));
        // One more for it would only turn the tables.
        pool.enter(one);
        assert_eq!(pool.gives_way_to(&one), None);
        assert_eq!(pool.gives_way_to(&source("192.0.2.1")), None);
    }

    #[test]
    fn within_a_site_the_network_with_more_gives_way() {
        let mut pool = Pool::new(9);
        let (greedy, _) = pool.enter(source("2001:db8:1:1::1"));
        pool.enter(source("2001:db8:1:1::2"));
        let neighbour = source("2001:db8:1:2::1");
        assert_eq!(pool.gives_way_to(&neighbour), Some(greedy));
        let same = source("2001:db8:1:1::3");
        assert_eq!(pool.gives_way_to(&same), None);
    }

    proptest! {
        /// A newcomer that is let in by this rule leaves nobody with less than its own source then has.
        #[test]
        fn giving_way_never_turns_the_tables(held in proptest::collection::vec(0_u8..5, 1..60), new in 0_u8..6) {
            let from = |host: u8| Source::of(IpAddr::from([192, 0, 2, host]));
            let mut pool = Pool::new(64);
            let entries: Vec<(Entry, u8)> = held.iter().map(|host| (pool.enter(from(*host)).0, *host)).collect();
            let count = |host: u8| held.iter().filter(|other| **other == host).count();
            if let Some(gone) = pool.gives_way_to(&from(new)) {
                let loser = entries.iter().find(|(entry, _)| *entry == gone).unwrap().1;
                prop_assert!(loser != new && count(loser) - 1 > count(new));
            }
        }

        /// Entries that give way in turn are those that give way one after the other.
        #[test]
        fn the_turn_is_the_order_in_which_entries_give_way(
            sources in proptest::collection::vec((0_u16..3, 0_u16..3), 0..40),
            spared in 0_u16..3,
            most in 0_usize..50,
        ) {
            let mut pool = Pool::new(64);
            for (site, network) in sources {
                let address = Ipv6Addr::from([0x2001, 0xdb8, site, network, 0, 0, 0, 1]);
                pool.enter(Source::of(address.into()));
            }
            let site = Ipv6Addr::from([0x2001, 0xdb8, spared, 0, 0, 0, 0, 0]);
            let turn = pool.give_way_in_turn(most, |source| source.wide() != site);
            let all = pool.give_way_in_turn(usize::MAX, |_| true);
            prop_assert_eq!(all.len(), pool.len());
            for entry in all {
                prop_assert_eq!(pool.gives_way(), Some(entry));
                prop_assert!(pool.leave(entry));
            }
            prop_assert!(turn.len() <= most);
        }

        /// Whatever others do, a source that holds no more than its share of the pool keeps all it has.
        #[test]
        fn a_source_within_its_share_loses_nothing(
            most in 4_usize..32,
            others in proptest::collection::vec(0_u8..4, 0..400),
        ) {
            let mut pool = Pool::new(most);
            let share = most / 5;
            let own = IpAddr::from([192, 0, 2, 99]);
            let own: Vec<Entry> = (0..share).map(|_| pool.enter(Source::of(own)).0).collect();
            for other in others {
                pool.enter(Source::of(IpAddr::from([192, 0, 2, other])));
                prop_assert!(pool.len() <= most);
            }
            prop_assert!(own.iter().all(|entry| pool.contains(*entry)));
        }
    }
}
