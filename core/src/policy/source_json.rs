//! Sources as JSON: addresses for packet filters, principals for SSH policies.

use std::fmt::Write as _;
use std::sync::Arc;

use super::compiled::{Compiled, Entry};
use super::ranges::Ranges;
use super::resolved_set::{TAILNET, addresses, subnets, user};
use crate::id::UserId;

/// `SrcIPs` without any source, as JSON.
pub const NOBODY: &str = "[]";

impl Compiled {
    /// `SrcIPs` of some sources, as JSON.
    pub(super) fn source_text(&self, number: usize) -> Arc<str> {
        let Some(cached) = self.source_json.get(number) else {
            return NOBODY.into();
        };
        let text = cached
            .addresses
            .get_or_init(|| self.write_source(number).into());
        text.clone()
    }

    fn write_source(&self, number: usize) -> String {
        let Some(sources) = self.resolved.sources.get(number) else {
            return NOBODY.to_owned();
        };
        if sources.set.danger && sources.postures.is_empty() {
            return "[\"*\"]".to_owned();
        }
        let mut list = JsonList::new();
        self.source_ranges(number).each_text(|text| list.push(text));
        if sources.set.any && sources.postures.is_empty() {
            // The official service does not join these with the ranges either.
            let mut routes: Vec<_> = self
                .entries
                .iter()
                .flat_map(|entry| subnets(&entry.node))
                .collect();
            routes.sort_unstable();
            routes.dedup();
            for route in routes {
                list.push(&route.to_string());
            }
        }
        list.end()
    }

    /// The addresses of some sources, without the subnets that `*` includes.
    pub(super) fn source_ranges(&self, number: usize) -> Ranges {
        let mut ranges = Ranges::default();
        let Some(sources) = self.resolved.sources.get(number) else {
            return ranges;
        };
        if sources.postures.is_empty() {
            ranges.push_all(&sources.set.literal);
            if sources.set.any {
                ranges.push_all(&TAILNET);
            }
        }
        for entry in self
            .entries
            .iter()
            .filter(|entry| entry.admitted.has(number))
        {
            let named = sources.set.names(&entry.node);
            for address in addresses(&entry.node) {
                if named || sources.set.literal.contains(address) {
                    ranges.push_address(address);
                }
            }
        }
        ranges.normalize();
        ranges
    }

    /// The nodes of a user that some sources include.
    pub(super) fn own_sources(&self, owner: UserId, number: usize) -> impl Iterator<Item = &Entry> {
        let entries = self.entries.iter().map(|entry| &**entry);
        entries.filter(move |entry| user(&entry.node) == Some(owner) && entry.admitted.has(number))
    }

    /// SSH principals of some sources, as JSON without the brackets.
    pub(super) fn principals_text(&self, number: usize) -> Arc<str> {
        let Some(cached) = self.source_json.get(number) else {
            return "".into();
        };
        let text = cached.principals.get_or_init(|| {
            let admitted = |entry: &&Arc<Entry>| entry.admitted.has(number);
            let entries = self.entries.iter().filter(admitted);
            self.principals(number, entries.map(|entry| &**entry))
                .into()
        });
        text.clone()
    }

    /// SSH principals of some nodes, as JSON without the brackets.
    pub(super) fn principals<'e>(
        &self,
        number: usize,
        entries: impl Iterator<Item = &'e Entry>,
    ) -> String {
        let mut text = String::new();
        for entry in entries {
            let sources = self.resolved.sources.get(number);
            let times = sources.map_or(1, |sources| sources.set.times(&entry.node));
            for _ in 0..times {
                for address in addresses(&entry.node) {
                    let comma = if text.is_empty() { "" } else { "," };
                    // Writing to a String cannot fail.
                    let _ = write!(text, "{comma}{{\"nodeIP\":\"{address}\"}}");
                }
            }
        }
        text
    }
}

/// `SrcIPs` of a set of addresses, as JSON.
pub fn ranges_text(ranges: &Ranges) -> String {
    let mut list = JsonList::new();
    ranges.each_text(|text| list.push(text));
    list.end()
}

/// A JSON list of texts that need no escapes.
struct JsonList(String);

impl JsonList {
    fn new() -> Self {
        Self("[".to_owned())
    }

    fn push(&mut self, text: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(text);
        self.0.push('"');
    }

    fn end(mut self) -> String {
        self.0.push(']');
        self.0
    }
}
