mod owners;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;
use serde_json::Value;

use crate::clock::{End, PLAUSIBLE_FROM};
use crate::id::{NodeId, UserId};
use crate::keys::DiscoKey;
use crate::netmap::frame::testing::text_of;
use crate::netmap::session::{EndReason, MapSession, Next};
use crate::netmap::testing::View;
use crate::netmap::{DialPlan, DnsSources, MapCache, MapContext, SharedMapData};
use crate::state::command::{Command, NewPolicy, NewUser, NodeUpdate};
use crate::state::dns::{DnsRecord, DnsSettings};
use crate::state::model::{CHANGES_KEPT, Hostinfo, Role, SessionId};
use crate::state::snapshot::Snapshot;
use crate::state::testing::{World, plain, with_key};
use crate::tailcfg::derpmap::DerpMap;

const LONG: Duration = Duration::from_secs(3600);

fn shared_data() -> SharedMapData {
    let shared = SharedMapData::new("hearth.internal".to_owned(), &DerpMap::default());
    // A name that nodes of the random histories have and lose.
    let alias = DnsRecord::parse("git", "ALIAS", "name1").expect("a record");
    let settings = DnsSettings {
        records: vec![alias],
        ..DnsSettings::default()
    };
    shared.with_dns(DnsSources {
        settings: Arc::new(settings),
        ..DnsSources::default()
    })
}

fn context<'a>(shared: &'a SharedMapData, snapshot: &'a Snapshot) -> MapContext<'a> {
    MapContext {
        shared,
        snapshot,
        now: PLAUSIBLE_FROM,
    }
}

/// The text of a framed message, compressed or not.
fn unframe(framed: &[u8]) -> Vec<u8> {
    let (length, body) = framed.split_at(4);
    assert_eq!(length, u32::try_from(body.len()).unwrap().to_le_bytes());
    text_of(body)
}

/// A client that holds its map as the official one does.
#[derive(Default, PartialEq, Debug, Clone)]
struct Client {
    view: View,
    /// The profiles that it shows: those of the owners at the time of the last map that it made from scratch.
    shown: BTreeMap<u64, Value>,
}

impl Client {
    fn hear(&mut self, next: Next) {
        match next {
            Next::Nothing => {}
            Next::Send(message) => self.take(message.json()),
            Next::SendMap(pieces) => self.take(&unframe(&pieces.concat())),
            Next::End(reason) => panic!("the stream ended: {reason:?}"),
        }
    }

    fn take(&mut self, message: &[u8]) {
        let message: Value = serde_json::from_slice(message).expect("a message is JSON");
        self.view.apply(&message);
        // `mapResponseContainsNonPatchFields` in tailscale `types/netmap/nodemut.go`.
        let steps = [
            "PeersRemoved",
            "PeersChanged",
            "PeersChangedPatch",
            "UserProfiles",
            "PacketFilters",
            "ControlTime",
        ];
        let mut fields = message.as_object().expect("an object").keys();
        if fields.any(|field| !steps.contains(&field.as_str())) {
            let view = &self.view;
            let owners = view.peers.values().chain([&view.itself]);
            let owners = owners.filter_map(|node| node["User"].as_u64());
            self.shown = owners
                .filter_map(|id| Some((id, view.profiles.get(&id)?.clone())))
                .collect();
        }
    }

    /// The map without what need not match: the profiles of users whose nodes are all gone, which stay
    /// and do no harm, and what a node knows better of itself than the server does.
    fn seen(&self) -> (Value, BTreeMap<u64, Value>, Vec<Value>, [Value; 4]) {
        let view = &self.view;
        let owner = |node: &Value| node["User"].as_u64().and_then(|id| self.shown.get(&id));
        let nodes = view.peers.values().chain([&view.itself]);
        let profiles = nodes
            .map(|node| owner(node).cloned().expect("every owner has a profile"))
            .collect();
        let messages = serde_json::to_value(&view.messages).expect("JSON");
        let (filter, ssh) = (view.filter.clone(), view.ssh.clone());
        let rest = [filter, ssh, view.dns.clone(), messages];
        (view.own_node(), view.peers.clone(), profiles, rest)
    }
}

/// A viewer with its stream and what it made of the messages.
struct Viewer {
    node: NodeId,
    session: MapSession,
    client: Client,
}

struct Scene {
    world: World,
    shared: SharedMapData,
    cache: MapCache,
    viewers: Vec<Viewer>,
}

impl Scene {
    fn new(nodes: u8) -> Self {
        let (mut world, _) = World::with_user();
        world.preauth_key("k", |key| key.reusable = true);
        let second = NewUser {
            name: "ben".into(),
            ..NewUser::default()
        };
        world
            .apply(Command::CreateUser(second))
            .expect("a second user");
        let mut scene = Self {
            world,
            shared: shared_data(),
            cache: MapCache::default(),
            viewers: Vec::new(),
        };
        for number in 1..=nodes {
            scene.world.join(with_key(number, number, "k"));
        }
        scene
    }

    /// A scene whose nodes have all been there.
    fn introduced(nodes: u8) -> Self {
        let mut scene = Self::new(nodes);
        for number in 1..=nodes {
            scene
                .world
                .open_stream(NodeId::new(number.into()).expect("not zero"));
        }
        scene
    }

    fn connect(&mut self, node: NodeId) {
        let number = self.world.open_stream(node);
        let snapshot = self.world.snapshot();
        let context = context(&self.shared, &snapshot);
        let (session, first) = MapSession::begin(node, number, true, &context, &self.cache);
        let mut client = Client::default();
        client.hear(first);
        self.viewers.retain(|viewer| viewer.node != node);
        self.viewers.push(Viewer {
            node,
            session,
            client,
        });
    }

    fn catch_up(&mut self, place: usize) {
        let snapshot = self.world.snapshot();
        let viewer = &mut self.viewers[place];
        let context = context(&self.shared, &snapshot);
        match viewer.session.advance(&context, &self.cache) {
            Next::End(_) => {
                self.viewers.remove(place);
            }
            next => viewer.client.hear(next),
        }
    }

    /// What the viewer would get from a new stream.
    fn fresh(&self, node: NodeId) -> Client {
        let snapshot = self.world.snapshot();
        let cache = MapCache::default();
        let context = context(&self.shared, &snapshot);
        let (_, first) = MapSession::begin(node, SessionId(0), false, &context, &cache);
        let mut client = Client::default();
        client.hear(first);
        client
    }
}

/// One thing that happens to a tailnet.
#[derive(Debug, Clone)]
enum Event {
    Join(u8, u8),
    Connect(u8),
    Disconnect(u8),
    Move(u8, u16),
    Restart(u8, u8),
    Rename(u8, u8),
    Expire(u8),
    Revive(u8),
    Delete(u8),
    RenameUser(u8),
    Authorize(u8, bool),
    Tag(u8, u8),
    Give(u8, u8),
    Offer(u8, u8),
    Approve(u8, u8),
    Readdress(u8, u8),
    Health(u8, bool),
    Role(bool),
    Policy(u8),
    Wait(u8),
    CatchUp(u8),
    /// All catch up, the last first or not.
    Settle(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => (1..9_u8, 1..99_u8).prop_map(|(machine, key)| Event::Join(machine, key)),
        3 => (1..9_u8).prop_map(Event::Connect),
        1 => (1..9_u8).prop_map(Event::Disconnect),
        2 => (1..9_u8, 1..9_u16).prop_map(|(node, port)| Event::Move(node, port)),
        1 => (1..9_u8, 1..9_u8).prop_map(|(node, key)| Event::Restart(node, key)),
        1 => (1..9_u8, 1..9_u8).prop_map(|(node, name)| Event::Rename(node, name)),
        1 => (1..9_u8).prop_map(Event::Expire),
        1 => (1..9_u8).prop_map(Event::Revive),
        1 => (1..9_u8).prop_map(Event::Delete),
        1 => (1..9_u8).prop_map(Event::RenameUser),
        1 => (1..9_u8, any::<bool>()).prop_map(|(node, yes)| Event::Authorize(node, yes)),
        1 => (1..9_u8, 0..3_u8).prop_map(|(node, tag)| Event::Tag(node, tag)),
        1 => (1..9_u8, 1..3_u8).prop_map(|(node, user)| Event::Give(node, user)),
        2 => (1..9_u8, 0..16_u8).prop_map(|(node, routes)| Event::Offer(node, routes)),
        2 => (1..9_u8, 0..16_u8).prop_map(|(node, routes)| Event::Approve(node, routes)),
        1 => (1..9_u8, 1..20_u8).prop_map(|(node, host)| Event::Readdress(node, host)),
        1 => (1..9_u8, any::<bool>()).prop_map(|(node, well)| Event::Health(node, well)),
        1 => any::<bool>().prop_map(Event::Role),
        1 => (0..9_u8).prop_map(Event::Policy),
        1 => (1..20_u8).prop_map(Event::Wait),
        3 => (0..8_u8).prop_map(Event::CatchUp),
        2 => any::<bool>().prop_map(Event::Settle),
    ]
}

/// Policies that part the tailnet in different ways.
const POLICIES: [&str; 9] = [
    "{}",
    r#"{"acls": []}"#,
    r#"{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}"#,
    r#"{"acls": [{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:*"]}]}"#,
    r#"{"tagOwners": {"tag:t0": [], "tag:t1": [], "tag:t2": []},
        "acls": [{"action": "accept", "src": ["anna@"], "dst": ["tag:t0:22"]},
                 {"action": "accept", "src": ["tag:t0"], "dst": ["tag:t1:*", "10.1.0.0/16:*"]}],
        "ssh": [{"action": "accept", "src": ["anna@"], "dst": ["tag:t0"], "users": ["root"]}],
        "autoApprovers": {"routes": {"10.0.0.0/8": ["tag:t0"]}, "exitNode": ["tag:t1"]}}"#,
    r#"{"groups": {"group:g": ["ben@"]},
        "grants": [{"src": ["group:g"], "dst": ["autogroup:internet"], "ip": ["*"]},
                   {"src": ["anna@"], "dst": ["192.168.1.0/24"], "ip": ["tcp:80"]}],
        "nodeAttrs": [{"target": ["ben@"], "attr": ["dns-subdomain-resolve", "disable-ipv4"]}]}"#,
    r#"{"tagOwners": {"tag:t0": [], "tag:t1": []},
        "grants": [{"src": ["*"], "dst": ["10.1.0.0/16"], "ip": ["*"], "via": ["tag:t0"]},
                   {"src": ["tag:t1"], "dst": ["tag:t0"], "ip": ["tcp:443"]}]}"#,
    r#"{"acls": [{"action": "accept", "src": ["100.64.0.1"], "dst": ["100.64.0.2:80", "ben@:443"]}],
        "ssh": [{"action": "check", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["autogroup:nonroot"]}],
        "randomizeClientPort": true}"#,
    // Viewers that see the same nodes, but not each other.
    r#"{"acls": [{"action": "accept", "src": ["100.64.0.1", "100.64.0.2", "100.64.0.4"],
                  "dst": ["100.64.0.3:*", "100.64.0.5:*", "100.64.0.6:*"]}]}"#,
];

/// Some of four routes, by the bits of `some`; sorted.
fn routes(some: u8) -> Vec<IpNet> {
    let all = ["0.0.0.0/0", "10.1.0.0/16", "192.168.1.0/24", "::/0"];
    let chosen = all
        .iter()
        .enumerate()
        .filter(|(bit, _)| some & (1 << bit) != 0);
    chosen
        .map(|(_, route)| route.parse().expect("a prefix"))
        .collect()
}

fn happen(scene: &mut Scene, event: Event) {
    let id = |number: u8| NodeId::new(number.into()).expect("not zero");
    let world = &mut scene.world;
    // What does not apply (a node that is gone, a name that is taken) is refused; that is fine here.
    match event {
        Event::Join(machine, key) => {
            let _ = world.register(with_key(machine, key, "k"));
        }
        Event::Connect(node) => {
            if world.model.node(id(node)).is_some() {
                scene.connect(id(node));
            }
        }
        Event::Disconnect(node) => {
            if let Some(node) = world.model.node(id(node))
                && let crate::state::model::Presence::Online(session) = node.presence
            {
                let node = node.id;
                let _ = world.apply(Command::CloseStream { node, session });
            }
        }
        Event::Move(node, port) => {
            let update = NodeUpdate {
                node: Some(id(node)),
                endpoints: Some(Arc::from([([192, 0, 2, 1], port).into()])),
                home_derp: Some(900 + port % 2),
                ..NodeUpdate::default()
            };
            let _ = world.apply(Command::UpdateNode(Box::new(update)));
        }
        Event::Restart(node, key) => {
            let update = NodeUpdate {
                node: Some(id(node)),
                disco: Some(DiscoKey::from_bytes([key; 32])),
                endpoints: Some(Arc::from([])),
                ..NodeUpdate::default()
            };
            let _ = world.apply(Command::UpdateNode(Box::new(update)));
        }
        Event::Rename(node, name) => {
            let _ = world.apply(Command::RenameNode(id(node), format!("name{name}").into()));
        }
        Event::Expire(node) => {
            let now = world.now.wall;
            let _ = world.apply(Command::ExpireNode(id(node), End::At(now)));
        }
        Event::Revive(node) => {
            let _ = world.apply(Command::ExpireNode(id(node), End::Never));
        }
        Event::Delete(node) => {
            let _ = world.apply(Command::DeleteNode(id(node)));
        }
        Event::RenameUser(name) => {
            let _ = world.apply(Command::RenameUser(
                UserId::FIRST,
                format!("user{name}").into(),
            ));
        }
        Event::Authorize(node, yes) => {
            let command = match yes {
                true => Command::ApproveNode(id(node)),
                false => Command::RevokeApproval(id(node)),
            };
            let _ = world.apply(command);
        }
        Event::Tag(node, tag) => {
            let tags = vec![format!("tag:t{tag}").into()];
            let _ = world.apply(Command::SetTags(id(node), tags));
        }
        Event::Give(node, user) => {
            let user = UserId::new(user.into()).expect("not zero");
            let _ = world.apply(Command::MoveNode(id(node), user));
        }
        Event::Offer(node, some) => {
            let Some(old) = world.model.node(id(node)) else {
                return;
            };
            let hostinfo = Hostinfo {
                routable_ips: routes(some).into(),
                ..(*old.hostinfo).clone()
            };
            let update = NodeUpdate {
                node: Some(id(node)),
                hostinfo: Some(Arc::new(hostinfo)),
                ..NodeUpdate::default()
            };
            let _ = world.apply(Command::UpdateNode(Box::new(update)));
        }
        Event::Approve(node, some) => {
            let _ = world.apply(Command::ApproveRoutes(id(node), routes(some)));
        }
        Event::Readdress(node, host) => {
            let ipv4 = Ipv4Addr::new(100, 64, 7, host);
            let _ = world.apply(Command::SetAddresses(id(node), Some(ipv4), None));
        }
        Event::Health(node, well) => {
            let _ = world.apply(Command::SetHealth(id(node), well));
        }
        Event::Role(admin) => {
            let role = match admin {
                true => Role::Admin,
                false => Role::Member,
            };
            let _ = world.apply(Command::SetRole(UserId::FIRST, role));
        }
        Event::Policy(number) => {
            let text = POLICIES[usize::from(number) % POLICIES.len()];
            let new = NewPolicy::parse(text, true).expect("a policy");
            let _ = world.apply(Command::SetPolicy(Box::new(new)));
        }
        Event::Wait(seconds) => world.wait(Duration::from_secs(seconds.into())),
        Event::Settle(backwards) => {
            let count = scene.viewers.len();
            for step in 0..count {
                let place = if backwards { count - 1 - step } else { step };
                if place < scene.viewers.len() {
                    scene.catch_up(place);
                }
            }
        }
        Event::CatchUp(place) => {
            if usize::from(place) < scene.viewers.len() {
                scene.catch_up(place.into());
            }
        }
    }
}

proptest! {
    /// Whatever happens, and however streams lag, drop and come back: a client that follows the
    /// changes ends with the map that a new stream would get.
    #[test]
    fn following_the_changes_gives_the_fresh_map(
        events in proptest::collection::vec(event(), 1..120)
    ) {
        let mut scene = Scene::new(4);
        for event in events {
            happen(&mut scene, event);
        }
        for place in (0..scene.viewers.len()).rev() {
            scene.catch_up(place);
        }
        for viewer in &scene.viewers {
            prop_assert_eq!(viewer.client.seen(), scene.fresh(viewer.node).seen());
        }
    }
}

#[test]
fn a_stream_that_lags_too_far_gets_everything() {
    let mut scene = Scene::introduced(3);
    let first = NodeId::FIRST;
    scene.connect(first);
    for port in 0..=CHANGES_KEPT {
        let port = u16::try_from(port % 8).expect("small");
        happen(&mut scene, Event::Move(2, port));
    }
    happen(&mut scene, Event::Delete(3));
    scene.catch_up(0);
    assert_eq!(scene.viewers[0].client.seen(), scene.fresh(first).seen());
}

#[test]
fn a_stream_ends_when_its_node_is_gone_or_elsewhere() {
    let mut scene = Scene::new(2);
    let (one, two) = (NodeId::FIRST, NodeId::new(2).expect("not zero"));
    scene.connect(one);
    scene.connect(two);
    scene.world.open_stream(one);
    scene
        .world
        .apply(Command::DeleteNode(two))
        .expect("deleted");
    let snapshot = scene.world.snapshot();
    let context = context(&scene.shared, &snapshot);
    let mut ends = scene
        .viewers
        .iter_mut()
        .map(|viewer| viewer.session.advance(&context, &scene.cache));
    assert!(matches!(
        ends.next(),
        Some(Next::End(EndReason::Superseded))
    ));
    assert!(matches!(ends.next(), Some(Next::End(EndReason::Deleted))));
}

#[test]
fn an_expired_node_sees_no_peers_and_no_peer_sees_it() {
    let mut scene = Scene::introduced(3);
    scene.connect(NodeId::FIRST);
    happen(&mut scene, Event::Expire(1));
    scene.catch_up(0);
    assert!(scene.viewers[0].client.view.peers.is_empty());
    assert_eq!(scene.viewers[0].client.view.itself["Expired"], true);
    assert_eq!(scene.viewers[0].client.view.filter, serde_json::json!([]));
    happen(&mut scene, Event::Move(2, 5));
    scene.catch_up(0);
    assert!(scene.viewers[0].client.view.peers.is_empty());
    happen(&mut scene, Event::Revive(1));
    scene.catch_up(0);
    assert_eq!(scene.viewers[0].client.view.peers.len(), 2);
}

#[test]
fn a_node_is_announced_when_it_asks_for_its_first_map() {
    let mut scene = Scene::new(2);
    scene.connect(NodeId::FIRST);
    assert!(scene.viewers[0].client.view.peers.is_empty());
    scene.world.open_stream(NodeId::new(2).expect("not zero"));
    scene.catch_up(0);
    assert_eq!(scene.viewers[0].client.view.peers[&2]["Online"], true);
}

#[test]
fn nothing_is_said_to_those_whom_a_change_does_not_concern() {
    let mut scene = Scene::new(2);
    scene.connect(NodeId::FIRST);
    scene.world.register(plain(9, 9)).expect("a login waits");
    scene.world.wait(LONG / 3600);
    let snapshot = scene.world.snapshot();
    let context = context(&scene.shared, &snapshot);
    let next = scene.viewers[0].session.advance(&context, &scene.cache);
    assert!(matches!(next, Next::Nothing), "{next:?}");
}

#[test]
fn a_new_derp_map_is_sent_once_alone_or_with_other_changes() {
    let mut scene = Scene::introduced(3);
    scene.connect(NodeId::FIRST);
    let mut region = crate::tailcfg::derpmap::DerpRegion::default();
    let mut sent = |scene: &mut Scene| {
        region.region_id += 1;
        let regions = BTreeMap::from([(region.region_id, region.clone())]);
        scene.shared = scene.shared.with_derp_map(&DerpMap {
            regions,
            ..DerpMap::default()
        });
        let snapshot = scene.world.snapshot();
        let context = context(&scene.shared, &snapshot);
        let session = &mut scene.viewers[0].session;
        let Next::Send(message) = session.advance(&context, &scene.cache) else {
            panic!("nothing is sent");
        };
        let again = session.advance(&context, &scene.cache);
        assert!(matches!(again, Next::Nothing));
        let message: Value = serde_json::from_slice(message.json()).expect("JSON");
        let number = region.region_id.to_string();
        assert!(message["DERPMap"]["Regions"][number].is_object());
        message.as_object().expect("an object").len()
    };
    assert_eq!(sent(&mut scene), 1);
    happen(&mut scene, Event::Move(2, 5));
    assert!(sent(&mut scene) > 1);
}

#[test]
fn a_new_dial_plan_is_sent_once_and_can_be_withdrawn() {
    let mut scene = Scene::introduced(3);
    scene.connect(NodeId::FIRST);
    let sent = |scene: &mut Scene, addresses: &[&str]| {
        let addresses: Vec<_> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        scene.shared = (scene.shared.clone()).with_dial_plan(DialPlan::new(&addresses));
        let snapshot = scene.world.snapshot();
        let context = context(&scene.shared, &snapshot);
        let session = &mut scene.viewers[0].session;
        let Next::Send(message) = session.advance(&context, &scene.cache) else {
            return None;
        };
        assert!(matches!(
            session.advance(&context, &scene.cache),
            Next::Nothing
        ));
        let message: Value = serde_json::from_slice(message.json()).expect("JSON");
        assert_eq!(message.as_object().map(serde_json::Map::len), Some(1));
        let candidates = message["ControlDialPlan"]["Candidates"].as_array()?;
        let ips = candidates
            .iter()
            .map(|one| one["IP"].as_str().unwrap().to_owned());
        Some(ips.collect::<Vec<_>>())
    };
    let both = ["192.168.1.1", "203.0.113.5"];
    assert_eq!(
        sent(&mut scene, &both),
        Some(both.map(String::from).to_vec())
    );
    assert_eq!(sent(&mut scene, &both), None);
    assert_eq!(sent(&mut scene, &[]), Some(Vec::new()));
    // A client that comes back may remember the plan that was withdrawn.
    let snapshot = scene.world.snapshot();
    let context = context(&scene.shared, &snapshot);
    let viewer = snapshot.node(NodeId::FIRST).unwrap();
    let map = crate::netmap::full::full_map(
        &context,
        &scene.cache,
        viewer,
        crate::netmap::full::Scope::Everyone,
        false,
        "",
    );
    let map: Value = serde_json::from_slice(&unframe(&map.concat())).expect("JSON");
    assert_eq!(
        map["ControlDialPlan"],
        serde_json::json!({"Candidates": []})
    );
}

#[test]
fn new_dns_settings_are_sent_once_alone_or_with_other_changes() {
    let mut scene = Scene::introduced(3);
    scene.connect(NodeId::FIRST);
    let sent = |scene: &mut Scene| {
        let snapshot = scene.world.snapshot();
        let context = context(&scene.shared, &snapshot);
        let session = &mut scene.viewers[0].session;
        let Next::Send(message) = session.advance(&context, &scene.cache) else {
            panic!("nothing is sent");
        };
        assert!(matches!(
            session.advance(&context, &scene.cache),
            Next::Nothing
        ));
        let message: Value = serde_json::from_slice(message.json()).expect("JSON");
        let records = message["DNSConfig"]["ExtraRecords"].as_array();
        let fields = message.as_object().expect("an object").len();
        (fields, records.map_or(0, Vec::len))
    };
    let record = DnsRecord::parse("cam", "A", "192.168.1.30").expect("a record");
    scene.world.apply(Command::AddDnsRecord(record)).unwrap();
    assert_eq!(sent(&mut scene), (1, 1));
    happen(&mut scene, Event::Rename(2, 1));
    let (fields, records) = sent(&mut scene);
    assert!(
        fields > 1 && records == 3,
        "{fields} fields, {records} records"
    );
    scene.shared = scene.shared.with_dns(DnsSources::default());
    assert_eq!(sent(&mut scene), (1, 1));
}

#[test]
fn a_node_that_becomes_a_wildcard_is_sent_to_all_peers_again() {
    let mut scene = Scene::introduced(3);
    scene.world.confirm_name(NodeId::new(2).expect("a number"));
    scene.connect(NodeId::FIRST);
    let settings = DnsSettings {
        wildcard: vec!["host2".parse().expect("a name")],
        ..DnsSettings::default()
    };
    scene.shared = scene.shared.with_dns(DnsSources {
        settings: Arc::new(settings),
        ..DnsSources::default()
    });
    let snapshot = scene.world.snapshot();
    let context = context(&scene.shared, &snapshot);
    let viewer = &mut scene.viewers[0];
    let next = viewer.session.advance(&context, &scene.cache);
    assert!(matches!(next, Next::SendMap(_)));
    viewer.client.hear(next);
    assert!(matches!(
        viewer.session.advance(&context, &scene.cache),
        Next::Nothing
    ));
    let capability =
        |peer: u64| &viewer.client.view.peers[&peer]["CapMap"]["dns-subdomain-resolve"];
    assert_eq!(
        (capability(2), capability(3)),
        (&serde_json::json!([]), &Value::Null)
    );
}
