//! The map of a node that is no longer in the tailnet, or never was: itself, with a key that has expired.
//!
//! Clients log in again only when their key has expired: an error, or the end of a stream, makes them ask again for the
//! same map, and they show themselves as connected all the while. Source: `mapRoutine` in tailscale
//! `control/controlclient/auto.go`, and `keyExpired` in `ipn/ipnlocal/local.go`.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::id::NodeId;
use crate::keys::{MachineKey, NodeKey};
use crate::tailcfg::json;
use crate::tailcfg::node::{CapMap, Node};

/// When the key expired, as clients are sent it: long ago by any clock. Nobody else gets to see it. The same moment with
/// which clients log out (`doLogin` in tailscale `control/controlclient/direct.go`).
const EXPIRED: Timestamp = Timestamp::from_unix_ms(123_000);

/// The message for the client with this node key and machine key; `id` is the number that its node had, where known. It
/// names nothing but what the client itself has sent, so it may go to anybody. It is valid as the first message of a
/// stream and as a later one.
pub fn farewell(id: Option<NodeId>, key: NodeKey, machine: MachineKey) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Farewell<'a> {
        node: Node<'a>,
    }
    json::plain(&Farewell {
        node: Node {
            id: id.map_or(0, NodeId::number),
            // Without a number the client keeps its profile as it is.
            stable_id: id.map(|id| id.to_string()).unwrap_or_default(),
            name: String::new(),
            user: 0,
            key,
            key_expiry: Some(EXPIRED),
            machine: Some(machine),
            disco_key: None,
            addresses: Vec::new(),
            allowed_ips: Vec::new(),
            primary_routes: Vec::new(),
            endpoints: &[],
            legacy_derp: String::new(),
            home_derp: 0,
            hostinfo: None,
            created: EXPIRED,
            cap: 0,
            tags: &[],
            last_seen: None,
            online: false,
            machine_authorized: true,
            cap_map: CapMap::new(),
            expired: true,
            wireguard: None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_farewell_says_that_the_own_key_has_expired_and_nothing_else() {
        let key = NodeKey::from_bytes([1; 32]);
        let machine = MachineKey::from_bytes([2; 32]);
        for (id, stable) in [(None, ""), (NodeId::new(7), "7")] {
            let text = farewell(id, key, machine);
            let map: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(map.as_object().unwrap().len(), 1);
            let node = &map["Node"];
            assert_eq!(node["Expired"], true);
            assert_eq!(node["KeyExpiry"], "1970-01-01T00:02:03Z");
            assert_eq!(node["Key"], key.to_string());
            assert_eq!(node["StableID"], stable);
            assert_eq!(node["MachineAuthorized"], true);
        }
    }
}
