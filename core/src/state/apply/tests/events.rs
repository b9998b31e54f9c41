//! What is noted of commands: one event each, with who did it, and no secret.

use super::*;
use crate::keys::NodeKey;
use crate::policy::Role;
use crate::state::attributes::AttributeValue;
use crate::state::command::{
    NewApiKey, NewPolicy, NewPreAuthKey, NewWireGuard, PresentedKey, Registration,
};
use crate::state::dns::DnsRecord;
use crate::state::event::{ActorKind, Event};
use crate::state::model::{KeyLifetime, SessionId, WireGuard};
use crate::state::principal::Principal;
use crate::state::scope::Scopes;
use crate::state::secret::{NewSecret, SecretKind, new_auth_id, new_secret, split};

/// What happened since this was last asked.
fn news(world: &mut World) -> Vec<Event> {
    std::mem::take(&mut world.events)
}

fn summaries(world: &mut World) -> Vec<String> {
    news(world).iter().map(Event::summary).collect()
}

fn preauth_key(secret: &NewSecret, user: UserId) -> NewPreAuthKey {
    NewPreAuthKey {
        user: Some(user),
        tags: Vec::new(),
        reusable: true,
        ephemeral: false,
        preauthorized: false,
        expiry: End::Never,
        prefix: secret.prefix.clone(),
        hash: secret.hash,
    }
}

fn presented(secret: &NewSecret, machine: u8) -> Register {
    Register {
        auth_key: Some(PresentedKey::WellFormed {
            prefix: secret.prefix.clone(),
            hash: secret.hash,
        }),
        ..plain(machine, machine)
    }
}

fn peer() -> NewWireGuard {
    NewWireGuard {
        label: "peer".into(),
        key: NodeKey::from_bytes([77; 32]),
        owner: Owner::User(UserId::FIRST),
        endpoints: vec!["203.0.113.5:51820".parse().unwrap()],
        ipv4: None,
        ipv6: None,
        routes: Vec::new(),
        details: WireGuard::default(),
    }
}

/// Commands about node 1 and user 1, with what is noted of each.
fn commands_about_nodes(now: Timestamp) -> Vec<(Command, &'static str)> {
    let (node, user) = (NodeId::FIRST, UserId::FIRST);
    let attribute = ("custom:a".into(), Some(AttributeValue::Flag(true)));
    vec![
        (Command::RevokeApproval(node), "node approval revoked"),
        (Command::ApproveNode(node), "node approved"),
        (Command::RenameNode(node, "nas".into()), "node renamed"),
        (
            Command::ExpireNode(node, End::At(now)),
            "node key expiry changed",
        ),
        (
            Command::ExpireNode(node, End::Never),
            "node key expiry changed",
        ),
        (
            Command::ApproveRoutes(node, vec!["10.0.0.0/8".parse().unwrap()]),
            "node approved routes changed",
        ),
        (
            Command::SetTags(node, vec!["tag:a".into()]),
            "node tags changed",
        ),
        (Command::MoveNode(node, user), "node owner changed"),
        (
            Command::SetAddresses(node, Some(Ipv4Addr::new(100, 64, 0, 99)), None),
            "node addresses changed",
        ),
        (
            Command::SetAttributes {
                node,
                updates: vec![attribute],
            },
            "node attributes changed",
        ),
        (Command::AddWireGuard(Box::new(peer())), "node created"),
        (Command::SetRole(user, Role::Admin), "user role changed"),
        (
            Command::SetUserExpiry(user, Some(KeyLifetime::Unlimited)),
            "user key lifetime changed",
        ),
        (Command::RenameUser(user, "berta".into()), "user renamed"),
        (Command::DeleteNode(node), "node deleted"),
    ]
}

fn other_commands() -> Vec<(Command, &'static str)> {
    let policy = NewPolicy::parse("{}", true).unwrap();
    let record = DnsRecord::parse("printer", "", "192.168.1.20").unwrap();
    let user = NewUser {
        name: "carl".into(),
        ..NewUser::default()
    };
    vec![
        (Command::SetPolicy(Box::new(policy)), "policy changed"),
        (Command::AddDnsRecord(record.clone()), "DNS record created"),
        (Command::DeleteDnsRecord(record), "DNS record deleted"),
        (Command::CreateUser(user), "user created"),
        (Command::DeleteUser(UserId::new(2).unwrap()), "user deleted"),
        (
            Command::ExpirePreAuthKey(PreAuthKeyId::FIRST),
            "preauth key expired",
        ),
        (
            Command::DeletePreAuthKey(PreAuthKeyId::FIRST),
            "preauth key deleted",
        ),
        (
            Command::ExpireApiKey(crate::id::ApiKeyId::FIRST),
            "API key expired",
        ),
        (
            Command::DeleteApiKey(crate::id::ApiKeyId::FIRST),
            "API key deleted",
        ),
    ]
}

#[test]
fn every_command_is_one_event_and_none_has_a_secret() {
    let (mut world, user) = World::with_user();
    let joins = new_secret(SecretKind::PreAuth).unwrap();
    let opens = new_secret(SecretKind::Api).unwrap();
    let (approved, rejected) = (new_auth_id().unwrap(), new_auth_id().unwrap());
    let (invited, invites) = (
        new_auth_id().unwrap(),
        new_secret(SecretKind::PreAuth).unwrap(),
    );
    let asks = |id: &crate::id::AuthId, machine| {
        Command::Register(Box::new(Register {
            fresh_id: id.clone(),
            ..plain(machine, machine)
        }))
    };
    let api_key = NewApiKey {
        scopes: Scopes::ALL,
        expiry: End::Never,
        prefix: opens.prefix.clone(),
        hash: opens.hash,
    };
    let new_key = preauth_key(&joins, user);
    let joining = Command::Register(Box::new(presented(&joins, 1)));
    let mut commands = vec![
        (Command::CreatePreAuthKey(new_key), "preauth key created"),
        (Command::CreateApiKey(api_key), "API key created"),
        (joining, "node joined"),
        (asks(&approved, 8), "registration requested"),
        (asks(&rejected, 9), "registration requested"),
        (
            Command::ApproveRegistration(approved.clone(), user),
            "registration approved",
        ),
        (
            Command::CreatePreAuthKey(preauth_key(&invites, user)),
            "preauth key created",
        ),
        (asks(&invited, 7), "registration requested"),
        (
            Command::RedeemPreAuthKey(
                invited.clone(),
                PresentedKey::WellFormed {
                    prefix: invites.prefix.clone(),
                    hash: invites.hash,
                },
            ),
            "node joined",
        ),
        (
            Command::RejectRegistration(rejected.clone()),
            "registration rejected",
        ),
    ];
    // Later than now, so that it is an expiry to come.
    let later = world.now.wall.plus(SECOND);
    commands.extend(commands_about_nodes(later));
    commands.extend(other_commands());
    let mut all = news(&mut world);
    for (command, expected) in commands {
        let name = format!("{command:?}");
        world.apply(command).unwrap();
        let events = news(&mut world);
        let found: Vec<String> = events.iter().map(Event::summary).collect();
        assert_eq!(found, [expected], "{name}");
        all.extend(events);
    }
    let secret = |kind, key: &NewSecret| split(kind, &key.text).unwrap().1.to_owned();
    let secrets = [
        secret(SecretKind::PreAuth, &joins),
        secret(SecretKind::Api, &opens),
        approved.to_string(),
        invited.to_string(),
        secret(SecretKind::PreAuth, &invites),
        rejected.to_string(),
    ];
    for event in all {
        let text = format!("{event:?} {} {}", event.summary(), event.actor);
        for secret in &secrets {
            assert!(!text.contains(&**secret), "{text}");
        }
    }
}

#[test]
fn the_event_of_a_new_api_key_says_what_the_key_may_do() {
    let mut world = World::new();
    let scopes = ["dns", "devices:core:read"].map(|name| name.parse().unwrap());
    let key = NewApiKey {
        scopes: scopes.into_iter().collect(),
        expiry: End::Never,
        prefix: "abc".into(),
        hash: new_secret(SecretKind::Api).unwrap().hash,
    };
    world.apply(Command::CreateApiKey(key)).unwrap();
    let event = news(&mut world).pop().unwrap();
    assert_eq!(&*event.values.new, "devices:core:read dns");
    assert_eq!(&*event.values.details, "expires never");
}

#[test]
fn what_writes_nothing_is_no_event() {
    let (mut world, _) = World::with_user();
    let node = world.node_number(1);
    news(&mut world);
    let session = world.open_stream(node);
    world
        .apply(Command::UpdateNode(Box::new(says(node, "192.0.2.1:1"))))
        .unwrap();
    world.apply(Command::SetHealth(node, false)).unwrap();
    world
        .apply(Command::RenameUser(UserId::FIRST, "anna".into()))
        .unwrap();
    world.apply(Command::ApproveNode(node)).unwrap();
    world.apply(Command::CloseStream { node, session }).unwrap();
    world.join(with_key(1, 1, "key1"));
    assert_eq!(summaries(&mut world), [""; 0]);
    assert_eq!(session, SessionId(1));
}

#[test]
fn a_node_makes_what_its_client_asks_for_and_others_what_they_ask_for() {
    let (mut world, user) = World::with_user();
    world.preauth_key("k", |key| key.reusable = true);
    news(&mut world);
    world.join(with_key(1, 1, "k"));
    world.join(with_key(1, 2, "k"));
    let left = Register {
        expiry: RequestedExpiry::Logout,
        ..plain(1, 2)
    };
    world.register(left).unwrap();
    let events = news(&mut world);
    let found: Vec<String> = events.iter().map(Event::summary).collect();
    assert_eq!(found, ["node joined", "node logged in", "node logged out"]);
    for event in &events {
        assert_eq!(event.actor.to_string(), "node host1");
        assert_eq!(&*event.target.name, "host1");
    }
    assert_eq!(&*events[0].values.new, "anna");
    assert_eq!(&*events[0].values.details, "hskey-auth-k");
    let by = Principal::ApiKey {
        id: crate::id::ApiKeyId::FIRST,
        prefix: "abc".into(),
        scopes: Scopes::ALL,
    };
    world
        .apply_as(&by, Command::RenameUser(user, "berta".into()))
        .unwrap();
    let event = news(&mut world).pop().unwrap();
    assert_eq!(event.actor.to_string(), "api key hskey-api-abc");
    assert_eq!(&*event.values.old, "anna");
    assert_eq!(&*event.values.new, "berta");
}

#[test]
fn a_client_that_reports_another_name_or_other_routes_is_an_event() {
    let (mut world, _) = World::with_user();
    let node = world.node_number(1);
    news(&mut world);
    let hostinfo = Hostinfo {
        hostname: "tv".into(),
        routable_ips: vec!["10.0.0.0/8".parse().unwrap()].into(),
        ..Hostinfo::default()
    };
    let update = NodeUpdate {
        node: Some(node),
        hostinfo: Some(Arc::new(hostinfo)),
        ..NodeUpdate::default()
    };
    world.apply(Command::UpdateNode(Box::new(update))).unwrap();
    let found = summaries(&mut world);
    assert_eq!(found, ["node renamed", "node advertised routes changed"]);
}

#[test]
fn time_makes_events_of_its_own() {
    let (mut world, _) = World::with_user();
    let lasting = world.node_number(1);
    world.preauth_key("e", |key| key.ephemeral = true);
    let ephemeral = world.join(with_key(2, 2, "e")).id;
    let session = world.open_stream(ephemeral);
    let close = Command::CloseStream {
        node: ephemeral,
        session,
    };
    world.apply(close).unwrap();
    let end = world.now.wall.plus(SECOND);
    world
        .apply(Command::ExpireNode(lasting, End::At(end)))
        .unwrap();
    let asks = Command::Register(Box::new(plain(9, 9)));
    let asked = world.apply_as(&Principal::Device, asks).unwrap();
    assert!(matches!(
        asked,
        Outcome::Registered(Registration::NeedsLogin(_))
    ));
    let requested = news(&mut world).pop().unwrap();
    assert_eq!(requested.actor.kind, ActorKind::Device);
    assert!(!requested.is_audited(), "strangers push nothing out");
    world.wait(SECOND * 10);
    assert_eq!(summaries(&mut world), ["node key expired"]);
    world.wait(SECOND * 60);
    assert_eq!(summaries(&mut world), ["node deleted"]);
    world.wait(SECOND * 3600);
    let events = news(&mut world);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].summary(), "registration expired");
    assert_eq!(events[0].actor.kind, ActorKind::System);
}
