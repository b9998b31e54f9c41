//! Arguments of `hearth nodes`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::{ArgGroup, Args, Subcommand};

use super::Remote;
use super::values::end;
use crate::config::moment::End;

/// Names one node.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct OneNode {
    /// Name, ID or address of the node.
    pub node: Option<String>,
    /// ID of the node.
    #[arg(short, long, value_name = "ID")]
    pub identifier: Option<String>,
}

impl OneNode {
    /// The name or ID that is given.
    pub fn text(self) -> String {
        self.node.or(self.identifier).unwrap_or_default()
    }
}

/// A node and its new name: `NODE NEW_NAME`, or Headscale's `-i NODE NEW_NAME`.
#[derive(Debug, Args)]
pub struct NodeAndName {
    /// Name or ID of the node.
    #[arg(value_name = "NODE")]
    first: String,
    /// New name.
    #[arg(
        value_name = "NEW_NAME",
        required_unless_present = "identifier",
        conflicts_with = "identifier"
    )]
    second: Option<String>,
    /// Name or ID of the node; then the only other argument is the new name.
    #[arg(short, long, value_name = "NODE")]
    identifier: Option<String>,
}

impl NodeAndName {
    /// The node and the new name.
    pub fn texts(self) -> (String, String) {
        match (self.identifier, self.second) {
            (Some(node), _) => (node, self.first),
            (None, new) => (self.first, new.unwrap_or_default()),
        }
    }
}

/// Commands about nodes.
#[derive(Debug, Subcommand)]
pub enum Nodes {
    /// List nodes.
    #[command(alias = "ls")]
    List {
        /// Only nodes of this user, by name or ID.
        #[arg(short, long)]
        user: Option<String>,
        /// Show the tags in a column of their own.
        #[arg(short, long)]
        tags: bool,
    },
    /// Show the details of a node.
    Show {
        /// The node.
        #[command(flatten)]
        which: OneNode,
    },
    /// Rename a node. The name no longer follows the hostname.
    #[command(
        override_usage = "hearth nodes rename [OPTIONS] <NODE> <NEW_NAME>\n       \
                          hearth nodes rename [OPTIONS] -i <NODE> <NEW_NAME>"
    )]
    Rename(NodeAndName),
    /// Expire a node's key, now or later: the device must log in again.
    #[command(aliases = ["logout", "exp", "e"])]
    Expire {
        /// The node.
        #[command(flatten)]
        which: OneNode,
        /// When: a duration such as 30d, a date (until the end of that day in UTC), a time such as 2027-01-31T12:00:00Z,
        /// or `never` [default: now].
        #[arg(short, long, value_name = "WHEN", value_parser = end)]
        expiry: Option<End>,
        /// Disable key expiry.
        #[arg(short, long, conflicts_with = "expiry")]
        disable: bool,
        /// All nodes of this user, by name or ID, except WireGuard devices.
        #[arg(long, value_name = "USER", group = "OneNode")]
        all_of: Option<String>,
    },
    /// List advertised and approved subnet routes and exit nodes.
    #[command(aliases = ["lsr", "routes"])]
    ListRoutes {
        /// Only routes of this node, by name or ID.
        #[arg(short, long, value_name = "NODE")]
        identifier: Option<String>,
    },
    /// Set the approved routes of a node: the full list, unless `--add` is given. 0.0.0.0/0 or ::/0 approves it as an
    /// exit node.
    ApproveRoutes {
        /// The node.
        #[command(flatten)]
        which: OneNode,
        /// Prefixes such as `192.168.1.0/24,0.0.0.0/0`; an empty text (`-r ''`) approves none.
        #[arg(
            short,
            long,
            required_unless_present = "all_offered",
            value_delimiter = ','
        )]
        routes: Vec<String>,
        /// Keep the routes that are approved.
        #[arg(long)]
        add: bool,
        /// Approve all routes that the node offers, and keep the others that are approved.
        #[arg(long, conflicts_with = "routes")]
        all_offered: bool,
    },
    /// Replace a node's owner or tags with these tags.
    #[command(aliases = ["tags", "t"])]
    Tag {
        /// The node.
        #[command(flatten)]
        which: OneNode,
        /// Tags, such as `tag:server,tag:web`.
        #[arg(short, long, required = true, value_delimiter = ',')]
        tags: Vec<String>,
    },
    /// Move a node to a user. It loses its tags.
    #[command(alias = "mv")]
    Move {
        /// The node.
        #[command(flatten)]
        which: OneNode,
        /// New owner, by name or ID.
        #[arg(short, long)]
        user: String,
    },
    /// Set a node's addresses, within 100.64.0.0/10 and fd7a:115c:a1e0::/48.
    #[command(group(ArgGroup::new("address").args(["ipv4", "ipv6"]).required(true).multiple(true)))]
    SetIp {
        /// The node.
        #[command(flatten)]
        which: OneNode,
        /// New IPv4 address.
        #[arg(long, value_name = "ADDR")]
        ipv4: Option<Ipv4Addr>,
        /// New IPv6 address.
        #[arg(long, value_name = "ADDR")]
        ipv6: Option<Ipv6Addr>,
    },
    /// Assign new addresses to all nodes whose addresses are outside `prefixes.v4` and `prefixes.v6`.
    #[command(visible_alias = "backfillips")]
    BackfillIps,
    /// Approve a device that awaits approval.
    Approve {
        /// The node.
        #[command(flatten)]
        which: OneNode,
    },
    /// Revoke a device's approval; it is cut off from all peers.
    Disapprove {
        /// The node.
        #[command(flatten)]
        which: OneNode,
    },
    /// Add a device that runs plain WireGuard instead of a Tailscale client.
    AddWireguard(NewWireGuard),
    /// Approve a pending device: Headscale's older form of `auth register`.
    #[command(hide = true)]
    Register {
        /// Owner of the device, by name or ID.
        #[arg(short, long)]
        user: String,
        /// ID of the registration.
        #[arg(short, long)]
        key: String,
        /// Approve it with the tags that it requests.
        #[arg(long)]
        tags: bool,
    },
    /// Delete a node. Its device must join again.
    #[command(aliases = ["del", "rm", "remove"])]
    Delete {
        /// The node.
        #[command(flatten)]
        which: OneNode,
    },
    /// Commands that the node carries out itself.
    #[command(flatten)]
    Remote(Remote),
}

/// A device that runs plain WireGuard.
#[derive(Debug, Args)]
pub struct NewWireGuard {
    /// Name of the node.
    pub name: String,
    /// Public key, as `wg show` prints it.
    #[arg(long)]
    pub key: String,
    /// Endpoints such as `203.0.113.5:51820`.
    #[arg(long, required = true, value_name = "ADDR:PORT", value_delimiter = ',')]
    pub endpoint: Vec<String>,
    /// Tailnet addresses, at most one of each family [default: the next free ones].
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub ip: Vec<IpAddr>,
    /// Subnet routes, such as `192.168.1.0/24`.
    #[arg(long, value_delimiter = ',')]
    pub routes: Vec<String>,
    /// Use it as an exit node.
    #[arg(long)]
    pub exit_node: bool,
    /// DNS resolvers for clients that use the exit node: addresses or `https://` URLs.
    #[arg(long, value_delimiter = ',', requires = "exit_node")]
    pub dns: Vec<String>,
    /// Source addresses that the device expects instead of tailnet addresses, at most one of each family.
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub masquerade: Vec<IpAddr>,
    /// Owner, by name or ID [default: the only user].
    #[arg(short, long, conflicts_with = "tags")]
    pub user: Option<String>,
    /// Tags; the node then belongs to no user.
    #[arg(short, long, value_delimiter = ',')]
    pub tags: Vec<String>,
}
