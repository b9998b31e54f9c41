//! What must be so after each step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hearth_core::id::NodeId;
use hearth_core::state::ending::Ending;
use hearth_core::state::model::{Node, Owner, is_exit_route};
use hearth_core::state::snapshot::Snapshot;
use tokio::time::{Instant, sleep};

use super::device::Device;
use super::world::{Life, World, Wrong};

/// How long what all devices know may take to be the same.
const ALIKE_WITHIN: Duration = Duration::from_secs(20);
/// How exact ends are: what is due is done within a minute, and a clock that is corrected by less does not count as set.
const EXACT: Duration = Duration::from_secs(11 * 60);

/// Whom a rule is about.
#[derive(Debug, Clone, Copy)]
enum Whom {
    All,
    User(&'static str),
    Tag(&'static str),
}

/// The policies, each by its rules: who may reach whom.
const RULES: [&[(Whom, Whom)]; super::plan::POLICIES] = [
    &[(Whom::All, Whom::All)],
    &[],
    &[
        (Whom::User("user1"), Whom::User("user1")),
        (Whom::User("user2"), Whom::User("user2")),
    ],
    &[(Whom::User("user1"), Whom::Tag("tag:server"))],
    &[
        (Whom::Tag("tag:phone"), Whom::User("user2")),
        (Whom::User("user3"), Whom::User("user1")),
    ],
];

impl Whom {
    fn text(self) -> String {
        match self {
            Self::All => "*".to_owned(),
            Self::User(name) => format!("{name}@"),
            Self::Tag(tag) => tag.to_owned(),
        }
    }

    fn means(self, node: &Node, snapshot: &Snapshot) -> bool {
        match (self, &node.owner) {
            (Self::All, _) => true,
            (Self::User(name), Owner::User(id)) => snapshot
                .users()
                .get(id)
                .is_some_and(|user| &*user.name == name),
            (Self::Tag(tag), Owner::Tags(_)) => node.tags().iter().any(|own| &**own == tag),
            (Self::User(_) | Self::Tag(_), _) => false,
        }
    }
}

/// The text of a policy.
pub(super) fn policy_text(number: usize) -> String {
    let rules: Vec<String> = RULES[number]
        .iter()
        .map(|(from, to)| {
            let (from, to) = (from.text(), to.text());
            format!(r#"{{"action":"accept","src":["{from}"],"dst":["{to}:*"]}}"#)
        })
        .collect();
    let owners = r#""tagOwners":{"tag:server":["user1@"],"tag:phone":["user2@"]}"#;
    format!(r#"{{{owners},"acls":[{}]}} // {number}"#, rules.join(","))
}

/// Whether the policy in force lets one of two nodes reach the other.
fn may_meet(one: &Node, other: &Node, snapshot: &Snapshot) -> bool {
    let Some(version) = snapshot.policies().last() else {
        return true;
    };
    let number = version.source.rsplit(' ').next();
    let number: usize = number
        .and_then(|number| number.parse().ok())
        .expect("a number");
    let reaches = |from: &Node, to: &Node| {
        let mut rules = RULES[number].iter();
        rules.any(|(src, dst)| src.means(from, snapshot) && dst.means(to, snapshot))
    };
    reaches(one, other) || reaches(other, one)
}

impl World {
    /// Looks at everything.
    pub(super) async fn look(&mut self) -> Result<(), Wrong> {
        self.names_and_addresses_are_unique()?;
        self.routes_have_one_primary()?;
        self.nothing_ends_too_early()?;
        self.devices_know_the_same().await?;
        self.devices_see_whom_they_may()?;
        self.the_relay_serves_whom_it_should().await
    }

    fn names_and_addresses_are_unique(&self) -> Result<(), Wrong> {
        let snapshot = self.snapshot();
        let mut seen = BTreeSet::new();
        for node in snapshot.nodes() {
            let own = [
                node.id.to_string(),
                node.label.to_string(),
                node.ipv4.to_string(),
                node.ipv6.to_string(),
                node.key.to_string(),
            ];
            for value in own {
                if !seen.insert(value.clone()) {
                    return Err(format!("two nodes have {value}"));
                }
            }
        }
        let mut names = BTreeSet::new();
        match snapshot
            .users()
            .values()
            .find(|user| !names.insert(&user.name))
        {
            Some(user) => Err(format!("two users are called {}", user.name)),
            None => Ok(()),
        }
    }

    fn routes_have_one_primary(&self) -> Result<(), Wrong> {
        let snapshot = self.snapshot();
        let mut primaries: BTreeMap<String, NodeId> = BTreeMap::new();
        let mut serving = BTreeSet::new();
        for node in snapshot.nodes() {
            for route in node.primary_routes.iter() {
                if let Some(other) = primaries.insert(route.to_string(), node.id) {
                    return Err(format!("{route} has two routers, {other} and {}", node.id));
                }
                if !node.served_routes().any(|served| served == *route) {
                    return Err(format!("{} is router of {route} and may not", node.id));
                }
            }
            if node.is_online() && node.is_active() && !node.is_isolated() {
                let routes = node.served_routes().filter(|route| !is_exit_route(route));
                serving.extend(routes.map(|route| route.to_string()));
            }
        }
        for route in serving {
            let Some(primary) = primaries.get(&route) else {
                return Err(format!("{route} has no router, and one is online"));
            };
            let primary = snapshot.node(*primary);
            if !primary.is_some_and(|node| node.is_online() && !node.is_isolated()) {
                return Err(format!(
                    "the router of {route} is offline, and another one is not"
                ));
            }
        }
        Ok(())
    }

    /// Keys of nodes live as long as they should, whatever the wall clock shows, as far as anybody can know.
    fn nothing_ends_too_early(&mut self) -> Result<(), Wrong> {
        let snapshot = self.snapshot();
        let (now, boot) = (Instant::now(), self.machine.boot());
        self.lives.retain(|id, _| snapshot.node(*id).is_some());
        let knows_time = self.machine.error().is_some();
        for node in snapshot.nodes() {
            let Ending::Span(span) = node.ending else {
                self.lives.remove(&node.id);
                continue;
            };
            let key = node.key.to_string();
            let known = self.lives.get(&node.id).filter(|life| life.of == key);
            let Some(life) = known else {
                let life = Life {
                    of: key,
                    from: now,
                    boot,
                    is_lost: false,
                };
                self.lives.insert(node.id, life);
                continue;
            };
            // It was seen some seconds after it was made.
            let age = now - life.from + EXACT;
            if node.expired && age < span.life && !life.is_lost {
                return Err(format!(
                    "the key of node {} has expired after {} s of {} s",
                    node.id,
                    age.as_secs(),
                    span.life.as_secs()
                ));
            }
            if knows_time && node.ending.known(node.expiry).is_none() {
                return Err(format!(
                    "the time is known, and not when node {} expires",
                    node.id
                ));
            }
        }
        Ok(())
    }

    async fn devices_know_the_same(&self) -> Result<(), Wrong> {
        for device in &self.devices {
            let deadline = Instant::now() + ALIKE_WITHIN;
            loop {
                match self.compare(device).await {
                    Ok(()) => break,
                    Err(wrong) if Instant::now() > deadline => {
                        return Err(format!("device {}: {wrong}", device.number));
                    }
                    Err(_) => sleep(Duration::from_secs(3)).await,
                }
            }
        }
        Ok(())
    }

    async fn compare(&self, device: &Device) -> Result<(), Wrong> {
        let is_away = self.away.contains(&device.number);
        if is_away || !device.should_stream() || !device.state().is_streaming {
            return Ok(());
        }
        let fresh = device
            .fresh_view()
            .await
            .map_err(|fault| fault.to_string())?;
        let difference = device.state().view.difference(&fresh);
        difference.map_or(Ok(()), Err)
    }

    fn devices_see_whom_they_may(&self) -> Result<(), Wrong> {
        let snapshot = self.snapshot();
        for device in &self.devices {
            let is_away = self.away.contains(&device.number);
            let state = device.state();
            if is_away || !state.is_on || !state.is_streaming {
                continue;
            }
            let own = state.view.id().and_then(NodeId::new);
            let Some(own) = own.and_then(|id| snapshot.node(id)) else {
                return Err(format!("device {} has a stream and no node", device.number));
            };
            let others = snapshot.nodes().iter().filter(|node| node.id != own.id);
            for other in others {
                let sees = state.view.peers.contains_key(&other.id.number());
                let may =
                    !own.is_isolated() && other.is_active() && may_meet(own, other, &snapshot);
                if sees && !may {
                    return Err(format!(
                        "node {} sees node {} and must not",
                        own.id, other.id
                    ));
                }
                if !sees && may && !other.is_isolated() {
                    return Err(format!("node {} should see node {}", own.id, other.id));
                }
                if sees
                    && other.is_isolated()
                    && state.view.peers[&other.id.number()]["Expired"] != true
                {
                    return Err(format!(
                        "node {} sees node {}, which is out",
                        own.id, other.id
                    ));
                }
            }
            let strangers = state.view.peers.keys().filter_map(|id| NodeId::new(*id));
            for id in strangers {
                if snapshot.node(id).is_none() {
                    return Err(format!("node {} sees node {id}, which was deleted", own.id));
                }
            }
        }
        Ok(())
    }

    /// The relay delivers between admitted devices, and has nobody else.
    async fn the_relay_serves_whom_it_should(&mut self) -> Result<(), Wrong> {
        let snapshot = self.snapshot();
        let is_there = |number: &usize| !self.away.contains(number);
        let there: Vec<usize> = (0..self.clients.len()).filter(is_there).collect();
        for number in &there {
            let key = self.clients[*number].key();
            if key.is_some_and(|key| !snapshot.admits(&key)) {
                return Err(format!("the relay keeps device {number}, which is out"));
            }
            let node = self.node(*number);
            let is_in = node.is_some_and(|node| !node.is_isolated());
            let device = &self.devices[*number];
            if key.is_none() && is_in && device.should_stream() {
                // It may be about to come back.
                sleep(Duration::from_secs(25)).await;
                if self.clients[*number].key().is_none() {
                    return Err(format!("device {number} is in and cannot use the relay"));
                }
            }
        }
        for (from, to) in there
            .iter()
            .flat_map(|from| there.iter().map(move |to| (from, to)))
        {
            let mut packet = vec![0; 80];
            let (client, other) = (&self.clients[*from], &self.clients[*to]);
            if from == to || client.key().is_none() || other.key().is_none() {
                continue;
            }
            self.packets += 1;
            packet[..4].copy_from_slice(&self.packets.to_be_bytes());
            if !client.reaches(other, &packet).await {
                return Err(format!(
                    "the relay loses a packet from device {from} to device {to}"
                ));
            }
        }
        Ok(())
    }

    /// Once all devices have left, nothing of them is left.
    pub(super) async fn nothing_is_left(&mut self) -> Result<(), Wrong> {
        for device in &self.devices {
            device.switch(false);
        }
        self.clear_flood();
        self.network.cut(None);
        // Longer than nodes count as online that were before a restart.
        sleep(Duration::from_secs(15 * 60)).await;
        let process = self.machine.process.as_ref().expect("the server runs");
        let counts = process.gate.counts();
        if counts != (0, 0) {
            return Err(format!("{counts:?} connections of devices that have left"));
        }
        let snapshot = process.engine.snapshot();
        match snapshot.nodes().iter().find(|node| node.is_online()) {
            Some(node) => Err(format!("node {} is still online", node.id)),
            None => Ok(()),
        }
    }
}

impl Device {
    /// How it stands, as far as it is the same in each run.
    pub(super) fn words(&self) -> String {
        let state = self.state();
        let standing = match &state.standing {
            super::device::Standing::Waiting(_) => "waiting".to_owned(),
            other => format!("{other:?}"),
        };
        let peers: Vec<&u64> = state.view.peers.keys().collect();
        format!("{standing} streams {} peers {peers:?}", state.streams)
    }
}
