//! The policy: taken over when it holds, kept with the ones before it.

use std::sync::Arc;

use crate::clock::Now;
use crate::id::PolicyId;
use crate::policy::{Compiled, Policy};
use crate::state::apply::{Applied, node, routes};
use crate::state::command::{NewPolicy, Rejected, Reply};
use crate::state::model::{Model, PolicyText};
use crate::state::record::Record;

/// Versions that are kept.
const VERSIONS_MAX: usize = 10;

/// Most bytes of the texts of all versions but the newest.
const BYTES_MAX: usize = 512 * 1024;

/// The policy that lets nobody reach anybody.
const CLOSED: &str = r#"{"acls": []}"#;

/// Takes a policy over, unless it names what there is not, or its tests fail. The same text as now is no
/// change; it is still tried, since users and nodes may have changed meanwhile.
pub(super) fn set(
    model: &mut Model,
    records: &mut Vec<Record>,
    new: NewPolicy,
    now: Now,
) -> Applied {
    let directory = routes::directory(model);
    let compiled = Compiled::compile(&new.policy, &directory);
    if let Err(faults) = compiled.check().map_err(Rejected::Policy)
        && new.must_hold
    {
        return Err(faults);
    }
    if let Some(current) = model.policies.last()
        && current.source == new.source
    {
        return Ok(Reply::Policy(current.clone()));
    }
    let id = match model.policies.last() {
        Some(last) => last.id.next().ok_or(Rejected::NoIds)?,
        None => PolicyId::FIRST,
    };
    let version = Arc::new(PolicyText {
        id,
        source: new.source,
        created: now.wall,
    });
    let versions = Arc::make_mut(&mut model.policies);
    versions.push(version.clone());
    records.push(Record::PutPolicy(version.clone()));
    while versions.len() > VERSIONS_MAX || old_bytes(versions) > BYTES_MAX {
        let oldest = versions.remove(0);
        records.push(Record::DeletePolicy(oldest.id));
    }
    adopt(model, records, compiled);
    Ok(Reply::Policy(version))
}

fn old_bytes(versions: &[Arc<PolicyText>]) -> usize {
    let older = versions.split_last().map_or(&[][..], |(_, older)| older);
    older.iter().map(|version| version.source.len()).sum()
}

/// Lets the newest stored policy apply. What cannot be read any more (a policy of a newer hearth) is passed
/// over for the one before it; where none can be read, nobody reaches anybody until there is one.
pub(super) fn apply_stored(model: &mut Model) {
    let parsed = model.policies.iter().rev();
    let newest = parsed.filter_map(|version| Policy::parse(&version.source).ok());
    let closed = || (!model.policies.is_empty()).then(|| Policy::parse(CLOSED).ok());
    let policy = newest.map(Arc::new).next();
    let policy = policy.or_else(|| closed().flatten().map(Arc::new));
    routes::compile_anew(model, policy.as_ref());
}

/// Makes a compiled policy the one that applies, with all that follows from it for the nodes.
fn adopt(model: &mut Model, records: &mut Vec<Record>, compiled: Compiled) {
    routes::replace_compiled(model, compiled);
    let nodes: Vec<_> = model.nodes.iter().map(|node| node.id).collect();
    for id in nodes {
        let Some(known) = model.node(id) else {
            continue;
        };
        let mut changed = (**known).clone();
        if routes::approve_by_policy(model, &mut changed) {
            node::put_whole(model, records, changed);
        }
    }
}
