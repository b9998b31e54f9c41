//! Applies commands to a model: `(model, command, now)` to `(model, outcome, records, events)`.
//!
//! A command checks everything before it changes anything, so that a refused one leaves no trace.

mod address;
mod admit;
mod approval;
mod attributes;
mod clock;
mod dns;
mod key_expiry;
mod keys;
mod node;
mod pending;
mod pending_key;
mod policy;
mod register;
mod routes;
mod tags;
mod tick;
mod user;
mod wireguard;

pub use clock::was_set;
pub use routes::{directory, recompile};
pub use tick::{Flush, next_deadline, restore, tick};

use crate::state::command::{Command, Outcome, Rejected};
use crate::state::principal::Principal;
use crate::state::tx::Tx;

/// What an applied command gives.
pub type Applied = Result<Outcome, Rejected>;

/// Applies one command of `by`.
///
/// What follows for routes and policy is recompiled once for a batch, by [`tick`]: the outcome names what was made or
/// changed, and what that is now is read after it.
///
/// # Errors
/// When the command is refused; then nothing was changed.
pub fn apply(tx: &mut Tx<'_>, command: Command, by: &Principal) -> Applied {
    tx.act_as(by);
    match command {
        Command::Register(request) => register::register(tx, *request).map(Outcome::Registered),
        Command::UpdateNode(update) => node::update(tx, &update),
        Command::OpenStream {
            node,
            session,
            fallback,
        } => node::open_stream(tx, node, session, *fallback),
        Command::CloseStream { node, session } => node::close_stream(tx, node, session),
        Command::CreateUser(new) => user::create(tx, new),
        Command::RenameUser(id, name) => user::rename(tx, id, name),
        Command::DeleteUser(id) => user::delete(tx, id),
        Command::SetRole(id, role) => user::set_role(tx, id, role),
        Command::SetUserExpiry(id, lifetime) => user::set_key_lifetime(tx, id, lifetime),
        Command::RenameNode(id, name) => node::rename(tx, id, name),
        Command::ExpireNode(id, end) => key_expiry::set(tx, id, end),
        Command::DeleteNode(id) => node::delete(tx, id),
        Command::ApproveRoutes(id, list) => routes::approve(tx, id, list),
        Command::SetTags(id, tags) => tags::set_tags(tx, id, tags),
        Command::MoveNode(id, user) => tags::move_to(tx, id, user),
        Command::SetAddresses(id, v4, v6) => address::set(tx, id, v4, v6),
        Command::BackfillAddresses => address::backfill(tx),
        Command::ApproveNode(id) => approval::approve(tx, id),
        Command::RevokeApproval(id) => approval::revoke(tx, id),
        Command::SetHealth(id, healthy) => node::set_health(tx, id, healthy),
        Command::AddWireGuard(new) => wireguard::add(tx, *new),
        Command::SetAttributes { node, updates } => attributes::set(tx, node, updates),
        Command::ReserveNames(names) => {
            tx.reserve_names(*names);
            Ok(Outcome::Done)
        }
        Command::SetPolicy(new) => policy::set(tx, *new),
        Command::CreatePreAuthKey(new) => keys::create_preauth(tx, new),
        Command::ExpirePreAuthKey(id) => keys::expire_preauth(tx, id),
        Command::DeletePreAuthKey(id) => keys::delete_preauth(tx, id),
        Command::CreateApiKey(new) => keys::create_api(tx, new),
        Command::ExpireApiKey(id) => keys::expire_api(tx, id),
        Command::DeleteApiKey(id) => keys::delete_api(tx, id),
        Command::AddDnsRecord(record) => dns::add(tx, record),
        Command::DeleteDnsRecord(record) => dns::delete(tx, record),
        Command::ApproveRegistration(id, user) => pending::approve(tx, &id, user),
        Command::RedeemPreAuthKey(id, key) => pending_key::redeem(tx, &id, key),
        Command::RejectRegistration(id) => pending::reject(tx, &id),
    }
}

/// Applies one command of a device like [`apply`]. If it writes anything, `may_write` is asked; without its consent nothing
/// changes.
///
/// # Errors
/// As [`apply`], or when it may not write.
pub fn apply_counted(
    tx: &mut Tx<'_>,
    command: Command,
    by: &Principal,
    may_write: impl FnOnce() -> bool,
) -> Applied {
    tx.attempt(|tx| {
        let written = tx.written();
        let outcome = apply(tx, command, by)?;
        if tx.written() > written && !may_write() {
            return Err(Rejected::TooOften);
        }
        Ok(outcome)
    })
}

/// Refuses a text that is longer than what is kept.
fn check_length(field: &'static str, text: &str, limit: usize) -> Result<(), Rejected> {
    if text.len() > limit {
        return Err(Rejected::TooLong { field, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
