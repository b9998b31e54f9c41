//! What a state says that must survive: as texts, to be compared.

use std::collections::BTreeMap;

use hearth_core::state::ending::Ending;
use hearth_core::state::snapshot::Snapshot;

/// What must survive, by kind and id.
pub(super) type Facts = BTreeMap<String, String>;

/// The facts of a state, without what follows from the clock, and without what devices report again.
pub(super) fn facts(snapshot: &Snapshot) -> Facts {
    let mut facts = Facts::new();
    for (id, user) in snapshot.users() {
        facts.insert(
            format!("user {id}"),
            format!("{} {:?}", user.name, user.role),
        );
    }
    for node in snapshot.nodes() {
        let text = format!(
            "{} {} {:?} {:?} {} {} authorized {} ephemeral {} routes {:?} by {:?} {} {}",
            node.machine,
            node.key,
            node.label_chosen.then_some(&node.label),
            node.owner,
            node.ipv4,
            node.ipv6,
            node.authorized,
            node.ephemeral,
            node.approved_routes,
            node.registered_by,
            ending(node.ending),
            node.expiry.is_some(),
        );
        facts.insert(format!("node {}", node.id), text);
    }
    for (id, key) in snapshot.preauth_keys() {
        let text = format!(
            "{:?} {:?} reusable {} ephemeral {} used {} {}",
            key.user,
            key.tags,
            key.reusable,
            key.ephemeral,
            key.used,
            ending(key.ending),
        );
        facts.insert(format!("key {id}"), text);
    }
    for record in snapshot.dns_records().iter() {
        facts.insert(format!("record {record:?}"), String::new());
    }
    for version in snapshot.policies() {
        facts.insert(format!("policy {}", version.id), version.source.to_string());
    }
    facts
}

fn ending(ending: Ending) -> String {
    match ending {
        Ending::Date => "at a date".to_owned(),
        Ending::Hand => "by hand".to_owned(),
        Ending::Span(span) => format!("after {} s", span.life.as_secs()),
    }
}

/// What differs, in words.
pub(super) fn difference(now: &Facts, before: &Facts) -> Vec<String> {
    let mut words = Vec::new();
    for (what, text) in before {
        match now.get(what) {
            None => words.push(format!("{what} is gone: {text}")),
            Some(other) if other != text => {
                words.push(format!("{what} was {text} and is {other}"));
            }
            Some(_) => {}
        }
    }
    for (what, text) in now.iter().filter(|(what, _)| !before.contains_key(*what)) {
        words.push(format!("{what} is there: {text}"));
    }
    words
}
