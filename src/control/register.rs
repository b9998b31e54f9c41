//! `POST /machine/register`: registration, pending registration, key renewal, logout.

use std::sync::Arc;

use hyper::{Response, StatusCode};

use crate::control::context::{ControlContext, NoiseRequest};
use crate::control::convert;
use crate::control::node_auth::{refused, too_often};
use crate::control::ts2021::Peer;
use crate::engine::{EngineError, Reply};
use crate::net::body;
use crate::net::body::Body;
use crate::system_clock;
use hearth_core::clock::Now;
use hearth_core::id::AuthId;
use hearth_core::keys::{MachineKey, NodeKey};
use hearth_core::state::command::{PresentedKey, RegisterReply, Rejected};
use hearth_core::state::model::{PendingRegistration, PendingState, PreAuthKey};
use hearth_core::tailcfg::json;
use hearth_core::tailcfg::register::{RegisterRequest, RegisterResponse};

/// `Retry-After` for rate-limited clients, in seconds.
const RETRY_SECONDS: &str = "10";

/// `POST /machine/register`: registers a node, renews its key, or logs it out.
pub async fn register(context: &ControlContext, request: NoiseRequest) -> Response<Body> {
    let NoiseRequest {
        peer,
        parts,
        body: bytes,
    } = request;
    // A follow-up may wait for days; it holds neither the headers nor the body.
    drop(parts);
    let request = match RegisterRequest::decode(&bytes) {
        Ok(request) => request,
        Err(fault) => return body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    };
    drop(bytes);
    if !request.version.is_served() {
        return crate::control::map::too_old(request.version);
    }
    if let Some(answer) = rate_limit(context, &peer, &request) {
        return answer;
    }
    let followup = convert::followup(&request.followup);
    if let Some(id) = &followup {
        decided(context, &peer, id).await;
    }
    // A registration of before a restart keeps its URL, which may have been sent to the owner.
    let snapshot = context.engine.snapshot();
    let is_ours = |id: &AuthId| {
        !snapshot.pending().contains_key(id) && context.auth_ids.is_given_to(id, &peer.machine)
    };
    let fresh_id = match followup.filter(is_ours) {
        Some(id) => Ok(id),
        None => context.auth_ids.make(&peer.machine),
    };
    let Ok(fresh_id) = fresh_id else {
        return body::text(
            StatusCode::SERVICE_UNAVAILABLE,
            "system has no random bytes",
        );
    };
    let command = convert::register(request, &peer, fresh_id, &context.limits);
    answer(context, context.engine.register(command).await)
}

/// Rate limit for machines without a node, which may be guessing keys. Pending registrations and clients with a valid
/// preauth key are exempt.
fn rate_limit(
    context: &ControlContext,
    peer: &Peer,
    request: &RegisterRequest,
) -> Option<Response<Body>> {
    let snapshot = context.engine.snapshot();
    let now = system_clock::now();
    // Also with a new node key: a client that logs in again has one.
    if snapshot.has_machine(&peer.machine)
        || is_pending(
            snapshot.pending().values(),
            &peer.machine,
            &request.node_key,
        )
        || has_preauth_key(snapshot.preauth_keys().values(), &request.auth_key, now)
        || (context.newcomers).take(peer.machine, peer.source.ip(), now.mono)
    {
        return None;
    }
    let fault = "too many new devices at once; try again in a moment";
    Some(too_often(fault, RETRY_SECONDS))
}

/// Whether this very registration is pending: a follow-up, which changes nothing.
fn is_pending<'a>(
    mut logins: impl Iterator<Item = &'a Arc<PendingRegistration>>,
    machine: &MachineKey,
    key: &NodeKey,
) -> bool {
    logins.any(|login| login.machine == *machine && login.key == *key)
}

/// Whether the client has a valid preauth key: such clients are exempt from the rate limit, so a thousand
/// machines can join at once. Keys are still as hard to guess, since the secret part has 256 random bits
/// and each wrong guess counts against the limit.
fn has_preauth_key<'a>(
    keys: impl Iterator<Item = &'a Arc<PreAuthKey>>,
    shown: &str,
    now: Now,
) -> bool {
    let found = PresentedKey::read(shown).find(keys);
    found.is_some_and(|key| key.may_join(now).is_ok())
}

/// Waits until a pending registration of this machine is decided or expires.
///
/// Ends on shutdown too; when the client disconnects the future is dropped.
async fn decided(context: &ControlContext, peer: &Peer, id: &AuthId) {
    let mut states = context.engine.watch();
    loop {
        let waits = states
            .borrow_and_update()
            .pending()
            .get(id)
            .is_some_and(|login| {
                login.state == PendingState::Waiting && login.machine == peer.machine
            });
        if !waits {
            return;
        }
        tokio::select! {
            biased;
            () = context.shutdown.wait() => return,
            changed = states.changed() => if changed.is_err() { return },
        }
    }
}

fn answer(
    context: &ControlContext,
    outcome: Result<Reply<RegisterReply>, EngineError>,
) -> Response<Body> {
    let response = match outcome {
        Ok(Reply { value, snapshot }) => match value {
            RegisterReply::Welcome(node) => convert::registered(&snapshot, &node),
            RegisterReply::NeedsLogin(id) => RegisterResponse {
                auth_url: context.login_url(&id),
                ..RegisterResponse::default()
            },
            RegisterReply::KeyExpired(node) => RegisterResponse {
                node_key_expired: true,
                ..node.map_or_else(RegisterResponse::default, |node| {
                    convert::registered(&snapshot, &node)
                })
            },
        },
        Err(fault @ EngineError::Rejected(Rejected::TooOften)) => return refused(&fault),
        Err(EngineError::Rejected(fault @ Rejected::MachineMismatch)) => {
            return body::text(StatusCode::UNAUTHORIZED, &fault.to_string());
        }
        // The client shows this text to its user.
        Err(EngineError::Rejected(fault)) => RegisterResponse {
            error: fault.to_string(),
            ..RegisterResponse::default()
        },
        Err(fault) => return refused(&fault),
    };
    body::typed(StatusCode::OK, "application/json", json::plain(&response))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::id::{PreAuthKeyId, UserId};
    use hearth_core::state::secret;
    use hearth_core::state::secret::SecretKind;
    use hearth_core::state::testing::{World, plain};
    use std::time::Duration;

    #[test]
    fn a_pending_registration_is_found_by_machine_and_key() {
        let (mut world, _) = World::with_user();
        world.register(plain(1, 1)).unwrap();
        let snapshot = world.snapshot();
        let is_known = |machine, key| {
            let machine = MachineKey::from_bytes([machine; 32]);
            let key = NodeKey::from_bytes([key; 32]);
            is_pending(snapshot.pending().values(), &machine, &key)
        };
        assert!(is_known(1, 1));
        // Another node key replaces it, which counts as a registration.
        assert!(!is_known(1, 2) && !is_known(2, 1));
    }

    #[test]
    fn a_client_with_a_valid_preauth_key_is_exempt() {
        let now = system_clock::now();
        let made = secret::new_secret(SecretKind::PreAuth).unwrap();
        let key = PreAuthKey {
            id: PreAuthKeyId::FIRST,
            prefix: made.prefix.clone(),
            hash: made.hash,
            user: Some(UserId::FIRST),
            tags: Arc::default(),
            reusable: false,
            ephemeral: false,
            preauthorized: true,
            used: false,
            expiry: None,
            ending: Default::default(),
            created: now.wall,
        };
        let invites = |key: &PreAuthKey, shown: &str| {
            has_preauth_key(std::iter::once(&Arc::new(key.clone())), shown, now)
        };
        assert!(invites(&key, &made.text));
        let used = PreAuthKey {
            used: true,
            ..key.clone()
        };
        assert!(!invites(&used, &made.text));
        let reusable = PreAuthKey {
            reusable: true,
            ..used
        };
        assert!(invites(&reusable, &made.text));
        let ends = |at| PreAuthKey {
            expiry: Some(at),
            ..key.clone()
        };
        assert!(!invites(&ends(now.wall), &made.text));
        let later = now.wall.plus(Duration::from_secs(1));
        assert!(invites(&ends(later), &made.text));
        let other = secret::new_secret(SecretKind::PreAuth).unwrap();
        let (_, wrong) = secret::split(SecretKind::PreAuth, &other.text).unwrap();
        for shown in [
            &format!("hskey-auth-{}-{wrong}", made.prefix),
            &*other.text,
            "",
        ] {
            assert!(!invites(&key, shown), "{shown}");
        }
    }
}
