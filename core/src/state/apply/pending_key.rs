//! A preauth key that a person enters for a pending registration, because the app of the device takes none.

use crate::id::AuthId;
use crate::state::apply::{Applied, pending, register};
use crate::state::command::{
    Outcome, PresentedKey, Register, Registration, Rejected, RequestedExpiry,
};
use crate::state::model::{PendingRegistration, PendingState};
use crate::state::tx::Tx;

/// Admits the device by the rules, and with the events, of a device that presents the key itself.
pub(super) fn redeem(tx: &mut Tx<'_>, id: &AuthId, key: PresentedKey) -> Applied {
    let pending = pending::waiting(tx, id)?;
    // Nobody may decide about a registration without a key, not even of a machine that has joined meanwhile.
    register::find_key(tx, &key)?.ok_or(Rejected::UnknownPreAuthKey)?;
    let request = Register {
        machine: pending.machine,
        source: pending.source.narrow(),
        key: pending.key,
        lock: pending.lock,
        auth_key: Some(key),
        expiry: pending
            .expiry
            .map_or(RequestedExpiry::None, RequestedExpiry::At),
        followup: None,
        ephemeral: pending.ephemeral,
        hostinfo: pending.hostinfo.clone(),
        capability: pending.capability,
        fresh_id: pending.id.clone(),
    };
    let Registration::Welcome(node) = register::register(tx, request)? else {
        return Err(Rejected::NoSuchLogin);
    };
    tx.put_pending(PendingRegistration {
        state: PendingState::Approved(node),
        ..(*pending).clone()
    });
    Ok(Outcome::Node(node))
}
