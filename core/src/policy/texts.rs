//! Sources as the wire writes them, made once for each version.

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use crate::id::UserId;
use crate::policy::compiled::{Compiled, Entry};
use crate::policy::members::{TAILNET, addresses, subnets, user};
use crate::policy::ranges::Ranges;

/// The texts of some sources, as soon as anybody asked for them.
#[derive(Debug, Default)]
pub struct Texts {
    addresses: OnceLock<Arc<str>>,
    principals: OnceLock<Arc<str>>,
}

/// What no source is in, as JSON.
pub const NOBODY: &str = "[]";

impl Compiled {
    /// `SrcIPs` of some sources, as JSON.
    pub(super) fn source_text(&self, number: usize) -> Arc<str> {
        let Some(texts) = self.texts.get(number) else {
            return NOBODY.into();
        };
        let text = texts
            .addresses
            .get_or_init(|| self.write_source(number).into());
        text.clone()
    }

    fn write_source(&self, number: usize) -> String {
        let Some(sources) = self.program.sources.get(number) else {
            return NOBODY.to_owned();
        };
        if sources.members.danger && sources.postures.is_empty() {
            return "[\"*\"]".to_owned();
        }
        let mut list = List::new();
        self.source_ranges(number).each_text(|text| list.push(text));
        if sources.members.any && sources.postures.is_empty() {
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

    /// The addresses of some sources, without those behind routers that stand for `*`.
    pub(super) fn source_ranges(&self, number: usize) -> Ranges {
        let mut ranges = Ranges::default();
        let Some(sources) = self.program.sources.get(number) else {
            return ranges;
        };
        if sources.postures.is_empty() {
            ranges.push_all(&sources.members.literal);
            if sources.members.any {
                ranges.push_all(&TAILNET);
            }
        }
        for entry in self
            .entries
            .iter()
            .filter(|entry| entry.admitted.has(number))
        {
            let named = sources.members.names(&entry.node);
            for address in addresses(&entry.node) {
                if named || sources.members.literal.contains(address) {
                    ranges.push_address(address);
                }
            }
        }
        ranges.normalize();
        ranges
    }

    /// The devices of a user that are among some sources.
    pub(super) fn own_sources(&self, owner: UserId, number: usize) -> impl Iterator<Item = &Entry> {
        let entries = self.entries.iter().map(|entry| &**entry);
        entries.filter(move |entry| user(&entry.node) == Some(owner) && entry.admitted.has(number))
    }

    /// SSH principals of some sources, as JSON without the brackets.
    pub(super) fn principals_text(&self, number: usize) -> Arc<str> {
        let Some(texts) = self.texts.get(number) else {
            return "".into();
        };
        let text = texts.principals.get_or_init(|| {
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
            let sources = self.program.sources.get(number);
            let times = sources.map_or(1, |sources| sources.members.times(&entry.node));
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
    let mut list = List::new();
    ranges.each_text(|text| list.push(text));
    list.end()
}

/// A JSON list of texts that need no escapes.
struct List(String);

impl List {
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
