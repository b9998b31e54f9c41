//! Keys of invitations that are entered for a pending registration.

use super::*;
use crate::id::AuthId;
use crate::state::command::PresentedKey;
use crate::state::event::Event;
use crate::state::principal::Principal;
use crate::state::secret::SecretHash;

fn asks(world: &mut World, machine: u8) -> AuthId {
    match world.register(plain(machine, machine)) {
        Ok(RegisterReply::NeedsLogin(id)) => id,
        other => panic!("{other:?}"),
    }
}

fn key(prefix: &str, secret: &str) -> PresentedKey {
    PresentedKey::WellFormed {
        prefix: prefix.into(),
        hash: SecretHash::of(secret),
    }
}

fn redeem(world: &mut World, id: &AuthId, key: PresentedKey) -> Result<NodeId, Rejected> {
    match world.apply_as(
        &Principal::Device,
        Command::RedeemPreAuthKey(id.clone(), key),
    )? {
        Outcome::Node(node) => Ok(node),
        other => panic!("{other:?}"),
    }
}

/// The device is what it would be if it had presented the key itself, and so are the events.
#[test]
fn a_pending_device_joins_by_a_key_as_if_it_had_presented_it() {
    for change in [
        |_: &mut crate::state::command::NewPreAuthKey| {},
        |key: &mut crate::state::command::NewPreAuthKey| key.ephemeral = true,
        |key: &mut crate::state::command::NewPreAuthKey| {
            key.user = None;
            key.tags = vec!["tag:kiosk".into()];
        },
        |key: &mut crate::state::command::NewPreAuthKey| key.reusable = true,
    ] {
        let (mut itself, _) = World::with_user();
        let (mut entered, _) = World::with_user();
        for world in [&mut itself, &mut entered] {
            world.preauth_key("k", change);
            world.events.clear();
        }
        let one = itself.join(with_key(1, 1, "k"));
        let id = asks(&mut entered, 1);
        entered.events.clear();
        let other = redeem(&mut entered, &id, key("k", "k")).unwrap();
        // But for the revision at which that was.
        let other_node = Node {
            facets: one.facets,
            ..(**entered.node(other)).clone()
        };
        assert_eq!(*one, other_node);
        let shown = |events: &[Event]| -> Vec<String> {
            let all = events.iter();
            all.map(|event| format!("{} {} {:?}", event.summary(), event.actor, event.values))
                .collect()
        };
        assert_eq!(shown(&itself.events), shown(&entered.events));
        assert_eq!(itself.model.preauth_keys, entered.model.preauth_keys);
        let state = entered.model.pending[&id].state;
        assert_eq!(state, PendingState::Approved(other));
    }
}

#[test]
fn a_key_that_admits_nobody_approves_nothing() {
    let (mut world, _) = World::with_user();
    world.preauth_key("used", |_| {});
    world.join(with_key(9, 9, "used"));
    let end = world.now.wall;
    world.preauth_key("expired", |key| key.expiry = End::At(end));
    let id = asks(&mut world, 1);
    let before = world.model.clone();
    for (presented, refusal) in [
        (PresentedKey::Malformed, Rejected::UnknownPreAuthKey),
        (key("none", "none"), Rejected::UnknownPreAuthKey),
        (key("used", "wrong"), Rejected::UnknownPreAuthKey),
        (key("used", "used"), Rejected::PreAuthKeyUsed),
        (key("expired", "expired"), Rejected::PreAuthKeyExpired),
    ] {
        assert_eq!(redeem(&mut world, &id, presented), Err(refusal));
        assert_eq!(world.model.pending, before.pending);
        assert_eq!(world.model.nodes, before.nodes);
    }
}

#[test]
fn what_is_decided_or_unknown_is_not_decided_again() {
    let (mut world, _) = World::with_user();
    world.preauth_key("k", |key| key.reusable = true);
    let id = asks(&mut world, 1);
    world
        .apply(Command::RejectRegistration(id.clone()))
        .unwrap();
    let again = redeem(&mut world, &id, key("k", "k"));
    assert_eq!(again, Err(Rejected::LoginDecided));
    let nobody = redeem(&mut world, &"nobody".parse().unwrap(), key("k", "k"));
    assert_eq!(nobody, Err(Rejected::NoSuchLogin));
    assert_eq!(world.model.nodes.iter().count(), 0);
}

#[test]
fn a_wrong_key_decides_nothing_about_a_machine_that_has_joined_meanwhile() {
    let (mut world, _) = World::with_user();
    let id = asks(&mut world, 1);
    world.preauth_key("k", |_| {});
    world.join(with_key(1, 1, "k"));
    assert!(redeem(&mut world, &id, key("none", "none")).is_err());
    let pending = world.model.pending.get(&id);
    assert!(pending.is_none_or(|pending| pending.state == PendingState::Waiting));
}

#[test]
fn a_key_that_does_not_preauthorize_leaves_the_device_to_its_approval() {
    let (mut world, _) = World::with_user();
    let mut settings = (*world.model.settings).clone();
    settings.device_approval = true;
    world.model.settings = Arc::new(settings);
    world.preauth_key("k", |key| key.preauthorized = false);
    let id = asks(&mut world, 1);
    let node = redeem(&mut world, &id, key("k", "k")).unwrap();
    assert!(!world.node(node).authorized);
}
