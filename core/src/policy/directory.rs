//! The tailnet as a policy sees it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::id::{NodeId, UserId};

/// Who a node belongs to: a user or its tags, never both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// One user's device.
    User(UserId),
    /// A device that stands for its role; sorted, not empty, each `tag:name`.
    Tags(Arc<[Box<str>]>),
}

/// What a user may do to the tailnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// The one who set it up.
    Owner,
    /// Somebody who may change it.
    Admin,
    /// Everybody else.
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
    /// Mail address; may be empty.
    pub email: Box<str>,
    /// What it may do.
    pub role: Role,
    /// Groups that the identity provider says it is in, each `group:name`.
    pub groups: Arc<[Box<str>]>,
}

/// What a client says about its machine, as far as postures ask for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Posture {
    /// Operating system (`Hostinfo.OS`).
    pub os: Box<str>,
    /// Its version (`Hostinfo.OSVersion`).
    pub os_version: Box<str>,
    /// Version of the client (`Hostinfo.IPNVersion`).
    pub client_version: Box<str>,
    /// Attributes that the node set or an administrator gave, `custom:name` and a JSON value.
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
    /// Routes that it offers and that are approved, sorted; with `0.0.0.0/0` and `::/0` when it is an
    /// approved exit node.
    pub routes: Arc<[IpNet]>,
    /// Those of them that it is the one to serve, sorted; never an exit route.
    pub primary: Arc<[IpNet]>,
    /// What postures ask for.
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
