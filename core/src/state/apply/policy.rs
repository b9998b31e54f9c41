//! The policy: set when it is valid and its tests pass, kept with the versions before it.

use std::sync::Arc;

use data_encoding::HEXLOWER;

use crate::id::PolicyId;
use crate::policy::{Compiled, Policy};
use crate::state::apply::{Applied, routes};
use crate::state::command::{NewPolicy, Outcome, Rejected};
use crate::state::event::{Action, Target, Values};
use crate::state::model::PolicyText;
use crate::state::secret::SecretHash;
use crate::state::tx::Tx;

/// Versions that are kept.
const VERSIONS_MAX: usize = 10;

/// Most bytes of the texts of all versions but the newest.
const BYTES_MAX: usize = 512 * 1024;

/// The policy that lets nobody reach anybody.
const CLOSED: &str = r#"{"acls": []}"#;

/// Sets the policy, unless it names what does not exist or its tests fail. The same text as now is no change; it is
/// still tried, since users and nodes may have changed since.
pub(super) fn set(tx: &mut Tx<'_>, new: NewPolicy) -> Applied {
    let directory = routes::directory(tx);
    let compiled = Compiled::compile(&new.policy, &directory);
    if let Err(faults) = compiled.check().map_err(Rejected::Policy)
        && new.must_hold
    {
        return Err(faults);
    }
    let current = tx.policies.last().cloned();
    if let Some(current) = &current
        && current.source == new.source
    {
        return Ok(Outcome::Policy(current.id));
    }
    let id = match &current {
        Some(last) => last.id.next().ok_or(Rejected::NoIds)?,
        None => PolicyId::FIRST,
    };
    event(tx, current.map(|current| current.id), id, &new.source);
    tx.push_policy(PolicyText {
        id,
        source: new.source,
        created: tx.now().wall,
    });
    while tx.policies.len() > VERSIONS_MAX || old_bytes(&tx.policies) > BYTES_MAX {
        tx.remove_oldest_policy();
    }
    adopt(tx, compiled);
    Ok(Outcome::Policy(id))
}

/// Notes the versions and the hash of the new one: the texts are kept with the versions.
fn event(tx: &mut Tx<'_>, old: Option<PolicyId>, new: PolicyId, source: &str) {
    let old = old.map(|old| old.to_string()).unwrap_or_default();
    let hash = HEXLOWER.encode(&SecretHash::of(source).to_bytes());
    let values = Values {
        details: format!("sha256:{hash}").into(),
        ..Values::change(&old, &new.to_string())
    };
    tx.event(Action::Update, Target::policy(), values);
}

fn old_bytes(versions: &[Arc<PolicyText>]) -> usize {
    let older = versions.split_last().map_or(&[][..], |(_, older)| older);
    older.iter().map(|version| version.source.len()).sum()
}

/// Lets the newest stored policy apply. One that cannot be read any more (a policy of a newer hearth) is skipped for
/// the one before it; where none can be read, or one is configured and none was ever valid, nobody reaches anybody
/// until there is one.
pub(super) fn apply_stored(tx: &mut Tx<'_>) {
    let parsed = tx.policies.iter().rev();
    let newest = parsed.filter_map(|version| Policy::parse(&version.source).ok());
    let is_closed = !tx.policies.is_empty() || tx.settings.policy_is_configured;
    let closed = || is_closed.then(|| Policy::parse(CLOSED).ok());
    let policy = newest.map(Arc::new).next();
    let policy = policy.or_else(|| closed().flatten().map(Arc::new));
    routes::compile_all(tx, policy.as_ref());
}

/// Makes a compiled policy the one that applies, with all that follows from it for the nodes.
fn adopt(tx: &mut Tx<'_>, compiled: Compiled) {
    routes::replace_compiled(tx, compiled);
    for node in tx.nodes.clone().iter() {
        let Some(known) = tx.node(node.id) else {
            continue;
        };
        let mut changed = (**known).clone();
        if routes::approve_by_policy(tx, &mut changed) {
            tx.put_whole_node(changed);
        }
    }
}
