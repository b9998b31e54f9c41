//! Node keys as the relay has them: the same bytes, a type of its own package.

use hearth_core::keys::NodeKey;
use hearth_derp::Key;

/// The key of a node, for the relay.
pub fn relay_key(key: &NodeKey) -> Key {
    Key::from(*key.as_bytes())
}

/// The key of a relay's client, for the state.
pub fn node_key(key: &Key) -> NodeKey {
    NodeKey::from_bytes(*key.as_bytes())
}
