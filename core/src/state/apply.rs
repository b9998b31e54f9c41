//! Applies commands to a model: `(model, command, now)` to `(model, reply, records)`.
//!
//! A command checks everything before it changes anything, so that a refused one leaves no trace.

mod address;
mod admit;
mod attributes;
mod dns;
mod keys;
mod node;
mod owner;
mod policy;
mod register;
mod routes;
mod tick;
mod user;
mod wireguard;

pub use routes::{directory, settle};
pub use tick::{Flush, next_deadline, settle_after_load, tick};

use crate::clock::Now;
use crate::state::command::{Command, Rejected, Reply};
use crate::state::model::Model;
use crate::state::record::Record;

/// What an applied command gives: the answer, and what must be on disk before it is given.
pub type Applied = Result<Reply, Rejected>;

/// Applies one command at revision `model.revision`, which the caller has advanced for the batch.
///
/// Records to commit are added to `records`. A change that is not durable adds none.
///
/// What follows for routes and policy is brought up to date once for a batch, by [`tick`].
///
/// # Errors
/// When the command is refused; then nothing was changed.
pub fn apply(model: &mut Model, records: &mut Vec<Record>, command: Command, now: Now) -> Applied {
    match command {
        Command::Register(request) => {
            register::register(model, records, *request, now).map(Reply::Registered)
        }
        Command::UpdateNode(update) => node::update(model, records, &update, now),
        Command::OpenStream {
            node,
            session,
            fallback,
        } => node::open_stream(model, records, node, session, *fallback, now),
        Command::CloseStream { node, session } => node::close_stream(model, node, session, now),
        Command::CreateUser(new) => user::create(model, records, new, now),
        Command::RenameUser(id, name) => user::rename(model, records, id, name),
        Command::DeleteUser(id) => user::delete(model, records, id),
        Command::SetRole(id, role) => user::set_role(model, records, id, role),
        Command::SetUserExpiry(id, life) => user::set_expiry(model, records, id, life),
        Command::RenameNode(id, name) => node::rename(model, records, id, name),
        Command::ExpireNode(id, at) => node::expire(model, records, id, at, now),
        Command::DeleteNode(id) => node::delete(model, records, id),
        Command::ApproveRoutes(id, list) => routes::approve(model, records, id, list),
        Command::SetTags(id, tags) => owner::set_tags(model, records, id, tags, now),
        Command::MoveNode(id, user) => owner::move_to(model, records, id, user),
        Command::SetAddresses(id, v4, v6) => address::set(model, records, id, v4, v6),
        Command::BackfillAddresses => address::backfill(model, records),
        Command::Authorize(id, whether) => node::authorize(model, records, id, whether),
        Command::SetHealth(id, healthy) => routes::set_health(model, id, healthy),
        Command::AddWireGuard(new) => wireguard::add(model, records, *new, now),
        Command::SetAttributes { node, updates } => attributes::set(model, records, node, updates),
        Command::SetPolicy(new) => policy::set(model, records, *new, now),
        Command::CreatePreAuthKey(new) => keys::create_preauth(model, records, new, now),
        Command::ExpirePreAuthKey(id) => keys::expire_preauth(model, records, id, now),
        Command::DeletePreAuthKey(id) => keys::delete_preauth(model, records, id),
        Command::CreateApiKey(new) => keys::create_api(model, records, new, now),
        Command::ExpireApiKey(id) => keys::expire_api(model, records, id, now),
        Command::DeleteApiKey(id) => keys::delete_api(model, records, id),
        Command::AddDnsRecord(record) => dns::add(model, records, record),
        Command::DeleteDnsRecord(record) => dns::delete(model, records, record),
        Command::Approve(id, user) => register::approve(model, records, &id, user, now),
        Command::Reject(id) => register::reject(model, records, &id),
    }
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
