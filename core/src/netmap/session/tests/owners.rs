//! How a change of the owner, and an expiry, show at others.

use super::*;
use crate::state::command::{Register, RequestedExpiry};
use crate::state::model::Presence;

/// A device that was given to somebody else was shown as one of `userid:2`.
#[test]
fn a_new_owner_is_shown_at_once_and_known_owners_cost_no_map_from_scratch() {
    let mut scene = Scene::introduced(3);
    scene.connect(NodeId::FIRST);
    let shown = |scene: &mut Scene, event: Event| {
        happen(scene, event);
        let snapshot = scene.world.snapshot();
        let context = context(&scene.shared, &snapshot);
        let viewer = &mut scene.viewers[0];
        let Next::Send(message) = viewer.session.advance(&context, &scene.cache) else {
            panic!("nothing is sent");
        };
        viewer.client.take(message.json());
        assert_eq!(viewer.client.seen(), scene.fresh(NodeId::FIRST).seen());
        let message: Value = serde_json::from_slice(message.json()).expect("JSON");
        message.get("Domain").is_some()
    };
    for event in [
        Event::Tag(2, 1),
        Event::Give(3, 2),
        Event::Give(2, 2),
        Event::RenameUser(3),
        Event::Join(4, 4),
    ] {
        let is_join = matches!(event, Event::Join(..));
        if is_join {
            happen(&mut scene, event);
            // The first of the viewer's owner among the peers, the second one, and one that was there.
            assert!(shown(&mut scene, Event::Connect(4)));
            happen(&mut scene, Event::Join(5, 5));
            assert!(!shown(&mut scene, Event::Connect(5)));
        } else {
            assert!(shown(&mut scene, event));
        }
    }
    assert!(!shown(&mut scene, Event::Rename(2, 7)));
}

/// The delta was made for the owner of the new node, and the other one showed it as one of `userid:2`.
#[test]
fn viewers_of_one_class_are_shown_a_new_owner_whoever_comes_first() {
    for order in [[0, 1], [1, 0]] {
        let mut scene = Scene::introduced(2);
        happen(&mut scene, Event::Policy(8));
        happen(&mut scene, Event::Give(2, 2));
        happen(&mut scene, Event::Join(3, 3));
        happen(&mut scene, Event::Give(3, 2));
        happen(&mut scene, Event::Connect(1));
        happen(&mut scene, Event::Connect(2));
        for place in [0, 1] {
            scene.catch_up(place);
        }
        scene.world.open_stream(NodeId::new(3).expect("not zero"));
        let compiled = scene.world.model.compiled.clone();
        let [one, two] = [0, 1].map(|place| scene.viewers[place].node);
        assert_eq!(compiled.view_class(one), compiled.view_class(two));
        assert!(!compiled.are_peers(one, two));
        for place in order {
            scene.catch_up(place);
        }
        for viewer in &scene.viewers {
            assert!(viewer.client.view.peers.contains_key(&3));
            assert_eq!(viewer.client.seen(), scene.fresh(viewer.node).seen());
        }
    }
}

#[test]
fn an_expired_node_is_offline_for_its_peers_at_once_and_online_again_when_it_is_extended() {
    let mut scene = Scene::introduced(2);
    scene.connect(NodeId::FIRST);
    let online = |scene: &mut Scene, event: Event| {
        happen(scene, event);
        scene.catch_up(0);
        scene.viewers[0].client.view.peers[&2]["Online"].clone()
    };
    assert_eq!(online(&mut scene, Event::Expire(2)), false);
    assert_eq!(scene.viewers[0].client.view.peers[&2]["Expired"], true);
    assert!(scene.viewers[0].client.view.peers[&2]["LastSeen"].is_string());
    assert_eq!(online(&mut scene, Event::Revive(2)), true);
    assert_eq!(online(&mut scene, Event::Expire(2)), false);
    // The stream of an expired node ends without a grace.
    happen(&mut scene, Event::Disconnect(2));
    scene.world.wait(Duration::ZERO);
    let node = scene.world.model.node(NodeId::new(2).expect("not zero"));
    let presence = node.expect("it is there").presence;
    assert!(matches!(presence, Presence::Offline { .. }));
}

#[test]
fn a_device_that_logs_out_is_offline_for_its_peers_at_once() {
    let mut scene = Scene::introduced(2);
    scene.connect(NodeId::FIRST);
    scene.catch_up(0);
    assert_eq!(scene.viewers[0].client.view.peers[&2]["Online"], true);
    let two = scene.world.model.node(NodeId::new(2).expect("not zero"));
    let two = two.expect("it is there").clone();
    assert!(matches!(two.presence, Presence::Online(_)));
    let logout = Register {
        key: two.key,
        expiry: RequestedExpiry::Logout,
        ..plain(2, 2)
    };
    scene.world.register(logout).expect("it is its own key");
    scene.catch_up(0);
    assert_eq!(scene.viewers[0].client.view.peers[&2]["Online"], false);
    assert_eq!(scene.viewers[0].client.view.peers[&2]["Expired"], true);
}
