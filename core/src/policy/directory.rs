//! The directory: users and nodes as a policy sees them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::id::{NodeId, UserId};

/// Owner of a node: a user or its tags, never both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A user's device.
    User(UserId),
    /// A tagged device; sorted, not empty, each `tag:name`.
    Tags(Arc<[Box<str>]>),
}

/// Role of a user in the tailnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Owner of the tailnet.
    Owner,
    /// May administer the tailnet.
    Admin,
    /// Any other user.
    #[default]
    Member,
}

/// A user as rules name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Number of the user.
    pub id: UserId,
    /// Login name, as in `anna@` or `anna@example.com`.
    pub login: Box<str>,
    /// Email address; may be empty.
    pub email: Box<str>,
    /// Role in the tailnet.
    pub role: Role,
    /// Groups from the identity provider, each `group:name`.
    pub groups: Arc<[Box<str>]>,
}

/// Posture data of a node: what its client reports about the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Posture {
    /// Operating system (`Hostinfo.OS`).
    pub os: Box<str>,
    /// Its version (`Hostinfo.OSVersion`).
    pub os_version: Box<str>,
    /// Version of the client (`Hostinfo.IPNVersion`).
    pub client_version: Box<str>,
    /// Attributes set by the node or an admin, `custom:name` and a JSON value.
    pub attributes: Arc<[(Box<str>, serde_json::Value)]>,
}

/// A node as rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Number of the node.
    pub id: NodeId,
    /// User or tags.
    pub owner: Owner,
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Advertised and approved routes, sorted; with `0.0.0.0/0` and `::/0` if it is an approved exit node.
    pub routes: Arc<[IpNet]>,
    /// Routes that it is the primary router of, sorted; never an exit route.
    pub primary: Arc<[IpNet]>,
    /// Posture data.
    pub posture: Arc<Posture>,
}

/// All users and nodes.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// The users, sorted by number.
    pub users: Vec<User>,
    /// The nodes, sorted by number.
    pub nodes: Vec<Node>,
}
