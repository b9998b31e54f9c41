//! What a client makes of its maps, as the official one does: `updateStateFromResponse` in tailscale
//! `control/controlclient/map.go`.

use std::collections::BTreeMap;

use serde_json::Value;

/// The map of a client.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    pub itself: Value,
    pub peers: BTreeMap<u64, Value>,
    pub profiles: BTreeMap<u64, Value>,
    pub filter: Value,
    pub ssh: Value,
    pub dns: Value,
    relays: Value,
    domain: Value,
    pub messages: BTreeMap<String, Value>,
}

impl View {
    pub fn apply(&mut self, message: &Value) {
        for (name, place) in [
            ("Node", &mut self.itself),
            ("SSHPolicy", &mut self.ssh),
            ("DNSConfig", &mut self.dns),
            ("DERPMap", &mut self.relays),
            ("Domain", &mut self.domain),
        ] {
            if let Some(value) = message.get(name) {
                *place = value.clone();
            }
        }
        if let Some(filters) = message.get("PacketFilters") {
            self.filter = filters["base"].clone();
        }
        if let Some(messages) = message.get("DisplayMessages").and_then(Value::as_object) {
            if messages.contains_key("*") {
                self.messages.clear();
            }
            for (id, message) in messages.iter().filter(|(id, _)| *id != "*") {
                self.messages.insert(id.clone(), message.clone());
            }
        }
        let list = |name: &str| -> Vec<Value> {
            let list = message.get(name).and_then(Value::as_array);
            list.cloned().unwrap_or_default()
        };
        let id = |value: &Value| value["ID"].as_u64().expect("an ID");
        for profile in list("UserProfiles") {
            self.profiles.insert(id(&profile), profile);
        }
        let whole = list("Peers");
        if !whole.is_empty() {
            self.peers = whole.into_iter().map(|peer| (id(&peer), peer)).collect();
            return;
        }
        for gone in list("PeersRemoved") {
            self.peers.remove(&gone.as_u64().expect("a number"));
        }
        for peer in list("PeersChanged") {
            self.peers.insert(id(&peer), peer);
        }
        for patch in list("PeersChangedPatch") {
            self.patch(&patch);
        }
    }

    fn patch(&mut self, patch: &Value) {
        let node = patch["NodeID"].as_u64().expect("a number");
        let Some(peer) = self.peers.get_mut(&node).and_then(Value::as_object_mut) else {
            return;
        };
        for name in ["Endpoints", "DiscoKey", "LastSeen", "Online"] {
            if let Some(value) = patch.get(name) {
                peer.insert(name.to_owned(), value.clone());
            }
        }
        // What a patch sets to nothing, a whole peer leaves out.
        if patch.get("Online") == Some(&Value::Bool(true)) {
            peer.remove("LastSeen");
        }
        let endpoints = patch.get("Endpoints").and_then(Value::as_array);
        if endpoints.is_some_and(Vec::is_empty) {
            peer.remove("Endpoints");
        }
        if let Some(region) = patch.get("DERPRegion") {
            peer.insert("HomeDERP".to_owned(), region.clone());
            peer.insert("DERP".to_owned(), format!("127.3.3.40:{region}").into());
        }
    }

    /// Whether the device has to log in again.
    pub fn is_expired(&self) -> bool {
        self.itself["Expired"] == true
    }

    /// The id of its own node.
    pub fn id(&self) -> Option<u64> {
        self.itself["ID"].as_u64()
    }

    /// The own node without what it knows better itself than the server does.
    pub fn own_node(&self) -> Value {
        let mut itself = self.itself.clone();
        if let Some(fields) = itself.as_object_mut() {
            for name in [
                "Endpoints",
                "HomeDERP",
                "DERP",
                "DiscoKey",
                "Online",
                "LastSeen",
            ] {
                fields.remove(name);
            }
        }
        itself
    }

    /// What is not as in another view of the same node, in words; what [`Self::own_node`] leaves out does not count, nor do
    /// the messages, which a single map does not have.
    pub fn difference(&self, fresh: &Self) -> Option<String> {
        for (id, peer) in &self.peers {
            match fresh.peers.get(id) {
                None => return Some(format!("peer {id} should be gone: {peer}")),
                Some(right) if right != peer => {
                    return Some(format!("peer {id} is {peer} and should be {right}"));
                }
                Some(_) => {}
            }
        }
        if let Some(id) = fresh.peers.keys().find(|id| !self.peers.contains_key(id)) {
            return Some(format!("peer {id} is missing"));
        }
        let (own, right) = (self.own_node(), fresh.own_node());
        if own != right {
            return Some(format!("its own node is {own} and should be {right}"));
        }
        for (id, profile) in &fresh.profiles {
            if self.profiles.get(id) != Some(profile) {
                return Some(format!("the profile of user {id} should be {profile}"));
            }
        }
        for (name, own, right) in [
            ("filter", &self.filter, &fresh.filter),
            ("SSH policy", &self.ssh, &fresh.ssh),
            ("DNS", &self.dns, &fresh.dns),
            ("relays", &self.relays, &fresh.relays),
            ("domain", &self.domain, &fresh.domain),
        ] {
            if own != right {
                return Some(format!("the {name} is {own} and should be {right}"));
            }
        }
        None
    }
}
