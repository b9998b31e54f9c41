//! Any text, read as a policy: it is refused with a reason, or it can be applied to a tailnet.
#![no_main]

use std::sync::Arc;

use hearth_core::id::{NodeId, UserId};
use hearth_core::policy::{Compiled, Directory, Node, Owner, Policy, Role, User};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let policy = match Policy::parse(text) {
        Ok(policy) => Arc::new(policy),
        Err(faults) => {
            let lines = text.split('\n').count();
            assert!(!faults.is_empty());
            assert!(faults.iter().all(|fault| fault.line as usize <= lines && fault.column > 0));
            return;
        }
    };
    let directory = directory();
    let compiled = Compiled::compile(&policy, &directory);
    let _ = compiled.check();
    for one in &directory.nodes {
        let filter = compiled.filter(one.id);
        assert!(serde_json::from_str::<serde_json::Value>(&filter).is_ok());
        if let Some(ssh) = compiled.ssh(one.id) {
            assert!(serde_json::from_str::<serde_json::Value>(&ssh).is_ok());
        }
        for other in &directory.nodes {
            let peers = compiled.are_peers(one.id, other.id);
            assert_eq!(peers, compiled.are_peers(other.id, one.id));
            let routes = compiled.routes(one.id, other.id);
            assert!(peers || routes.allowed.is_empty());
        }
    }
});

/// A user with a device, a server, and a router that is an exit node too.
fn directory() -> Directory {
    let user = User {
        id: UserId::FIRST,
        login: "a".into(),
        email: "a@b.c".into(),
        role: Role::Owner,
        groups: Arc::default(),
    };
    let node = |number: u8, owner, routes: &[&str]| Node {
        id: NodeId::new(number.into()).unwrap(),
        owner,
        ipv4: Some([100, 64, 0, number].into()),
        ipv6: Some([0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, number.into()].into()),
        routes: routes.iter().map(|route| route.parse().unwrap()).collect(),
        primary: routes.iter().take(1).map(|route| route.parse().unwrap()).collect(),
        posture: Arc::default(),
    };
    Directory {
        users: vec![user],
        nodes: vec![
            node(1, Owner::User(UserId::FIRST), &[]),
            node(2, Owner::Tags(["tag:a".into()].into()), &[]),
            node(3, Owner::Tags(["tag:b".into()].into()), &["10.0.0.0/8", "0.0.0.0/0", "::/0"]),
        ],
    }
}
