//! Principals: who makes a request, and what they may do.

use std::fmt;

use crate::id::{ApiKeyId, NodeId, UserId};
use crate::state::model::Role;
use crate::state::scope::Scopes;

/// Who makes a request, or runs a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Somebody who may open the Unix socket: the file's permissions are the authentication.
    Socket,
    /// An API key.
    ApiKey {
        /// The key.
        id: ApiKeyId,
        /// The public part of its text.
        prefix: Box<str>,
        /// What it may do.
        scopes: Scopes,
    },
    /// An OAuth client, by an access token.
    OAuthClient {
        /// The client's id.
        id: Box<str>,
        /// What its token may do.
        scopes: Scopes,
    },
    /// A person who is signed in on the web page.
    Session {
        /// The user.
        user: UserId,
        /// The user's role, which says what they may do.
        role: Role,
    },
    /// A node, proven by its Noise session.
    Node {
        /// The node.
        id: NodeId,
    },
    /// A device that asks to join and is no node yet.
    Device,
    /// hearth itself: expiry, failover, the policy file.
    System,
}

impl Principal {
    /// What this principal may do over the API. Nodes may do nothing there.
    pub fn scopes(&self) -> Scopes {
        match self {
            Self::Socket | Self::System => Scopes::ALL,
            Self::ApiKey { scopes, .. } | Self::OAuthClient { scopes, .. } => *scopes,
            Self::Session { role, .. } => scopes_of(*role),
            Self::Node { .. } | Self::Device => Scopes::NONE,
        }
    }
}

/// What a signed-in person with this role may do.
fn scopes_of(role: Role) -> Scopes {
    match role {
        Role::Owner | Role::Admin => Scopes::ALL,
        Role::Member => Scopes::NONE,
    }
}

/// As the log and the audit log have it: `socket`, `api key hskey-api-…`, `node 3`.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket => f.write_str("socket"),
            Self::ApiKey { prefix, .. } => write!(f, "api key hskey-api-{prefix}"),
            Self::OAuthClient { id, .. } => write!(f, "oauth client {id}"),
            Self::Session { user, .. } => write!(f, "user {user}"),
            Self::Node { id } => write!(f, "node {id}"),
            Self::Device => f.write_str("device"),
            Self::System => f.write_str("system"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::scope::{Area, Scope};

    #[test]
    fn roles_and_keys_open_what_they_name_and_nodes_nothing() {
        let session = |role| Principal::Session {
            user: UserId::FIRST,
            role,
        };
        let write = Scope::write(Area::PolicyFile);
        assert!(Principal::Socket.scopes().allow(write));
        assert!(session(Role::Owner).scopes().allow(write));
        assert!(session(Role::Member).scopes().is_empty());
        let node = Principal::Node { id: NodeId::FIRST };
        assert!(node.scopes().is_empty() && Principal::Device.scopes().is_empty());
    }
}
