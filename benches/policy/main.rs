//! Measures the policy compiler; `benches/policy/run` builds and runs it.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock itself"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_core::id::{NodeId, UserId};
use hearth_core::policy::{Compiled, Directory, Node, Owner, Policy, Role, User};

fn main() {
    let directory = directory(1000);
    let joining = Node {
        id: id(2000),
        ipv4: Some([100, 80, 0, 1].into()),
        ..directory.nodes[8].clone()
    };
    let policy = hundred_rules();
    let open = timed("allow all, 1000 nodes", 20, || {
        Compiled::allow_all(&directory)
    });
    timed("allow all, a join", 200, || {
        open.with_nodes(std::slice::from_ref(&joining), &[])
    });
    let rules = timed("100 rules, 1000 nodes", 20, || {
        Compiled::compile(&policy, &directory)
    });
    timed("100 rules, a join", 200, || {
        rules.with_nodes(std::slice::from_ref(&joining), &[])
    });
    let pairs = || (1..=1000).flat_map(|one| (1..=1000).map(move |other| (id(one), id(other))));
    let peers = timed("100 rules, a million peer queries", 5, || {
        pairs()
            .filter(|(one, other)| rules.are_peers(*one, *other))
            .count()
    });
    let routes = timed("100 rules, a million route queries", 5, || {
        pairs()
            .filter(|(one, other)| !rules.routes(*one, *other).allowed.is_empty())
            .count()
    });
    let bytes = timed("100 rules, all filters", 5, || {
        let fresh = rules.with_nodes(std::slice::from_ref(&joining), &[]);
        (1..=1000)
            .map(|node| fresh.filter(id(node)).len())
            .sum::<usize>()
    });
    let classes: std::collections::BTreeSet<u32> =
        (1..=1000).map(|node| rules.view_class(id(node))).collect();
    println!(
        "{peers} pairs of peers, {routes} with routes, {} classes, {bytes} bytes of filters",
        classes.len()
    );
}

fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// `count` nodes: half of users with four devices each, half tagged; every tenth is a subnet router.
fn directory(count: u64) -> Directory {
    let users = (1..=count.div_ceil(8)).map(|number| {
        let login = format!("user{number}");
        User {
            id: UserId::new(number).unwrap(),
            email: format!("{login}@example.com").into(),
            login: login.into(),
            role: Role::Member,
            groups: Arc::default(),
        }
    });
    Directory {
        users: users.collect(),
        nodes: (1..=count).map(node).collect(),
    }
}

fn node(number: u64) -> Node {
    let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
    let route = format!("10.{}.{}.0/24", number / 256, number % 256);
    let routes: Vec<ipnet::IpNet> = match number % 10 {
        0 => vec![route.parse().unwrap()],
        _ => Vec::new(),
    };
    Node {
        id: id(number),
        owner: match number % 2 {
            0 => Owner::Tags([format!("tag:t{}", number % 40).into()].into()),
            _ => Owner::User(UserId::new(number / 8 + 1).unwrap()),
        },
        ipv4: Some([100, 70, high, low].into()),
        ipv6: Some(format!("fd7a:115c:a1e0::{number:x}").parse().unwrap()),
        primary: routes.clone().into(),
        routes: routes.into(),
        posture: Arc::default(),
    }
}

/// A hundred rules of all kinds.
fn hundred_rules() -> Arc<Policy> {
    let owners: Vec<String> = (0..40).map(|tag| format!("\"tag:t{tag}\": []")).collect();
    let mut rules = vec![
        r#"{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:*"]}"#
            .to_owned(),
        r#"{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:internet:*"]}"#
            .to_owned(),
    ];
    for number in 2..100 {
        let (src, dst) = (number * 6 % 40, number * 22 % 40);
        rules.push(match number % 4 {
            0 => format!(r#"{{"action": "accept", "src": ["user{number}@"], "dst": ["tag:t{dst}:22,443"]}}"#),
            1 => format!(r#"{{"action": "accept", "src": ["tag:t{src}"], "dst": ["10.{}.0.0/16:*"]}}"#, number % 4),
            2 => format!(r#"{{"action": "accept", "src": ["autogroup:member"], "dst": ["tag:t{dst}:80"]}}"#),
            _ => format!(r#"{{"action": "accept", "src": ["tag:t{src}", "tag:t{dst}"], "dst": ["tag:t{dst}:*"]}}"#),
        });
    }
    let text = format!(
        r#"{{"tagOwners": {{{}}}, "acls": [{}]}}"#,
        owners.join(","),
        rules.join(",")
    );
    Arc::new(Policy::parse(&text).unwrap())
}

/// Runs `run` `times` times and prints the shortest time.
fn timed<T>(what: &str, times: u32, mut run: impl FnMut() -> T) -> T {
    let mut best = Duration::MAX;
    let mut result = None;
    for _ in 0..times {
        let begin = Instant::now();
        let value = run();
        best = best.min(begin.elapsed());
        result = Some(value);
    }
    println!("{what}: {best:?}");
    result.unwrap()
}
