//! What the command line may say about nodes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::{ArgGroup, Args as ClapArgs, Subcommand};

use super::super::contact::ToNode;
use super::moment;
use hearth_core::clock::Timestamp;

/// Names one node.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub struct OneNode {
    /// Name or id of the node.
    pub node: Option<String>,
    /// Id of the node.
    #[arg(short, long, value_name = "ID")]
    pub identifier: Option<String>,
}

/// Commands about nodes.
#[derive(Debug, Subcommand)]
pub enum Nodes {
    /// List nodes.
    #[command(alias = "ls")]
    List {
        /// Only those of this user, by name or id.
        #[arg(short, long)]
        user: Option<String>,
    },
    /// Show all about one node.
    Show {
        /// The node.
        #[command(flatten)]
        which: OneNode,
    },
    /// Give a node a name that stays.
    Rename {
        /// The new name.
        new_name: String,
        /// Name or id of the node.
        #[arg(short, long, value_name = "NODE")]
        identifier: String,
    },
    /// Log a node out, now or later.
    #[command(aliases = ["logout", "exp", "e"])]
    Expire {
        /// The node.
        #[command(flatten)]
        which: OneNode,
        /// When: a time such as 2027-01-31T12:00:00Z, or from now, such as 30d.
        #[arg(short, long, value_name = "WHEN", value_parser = moment)]
        expiry: Option<Timestamp>,
        /// Never.
        #[arg(short, long, conflicts_with = "expiry")]
        disable: bool,
        /// All nodes of this user instead, by name or id; devices without a Tailscale client stay.
        #[arg(long, value_name = "USER", group = "OneNode")]
        all_of: Option<String>,
    },
    /// List the routes that nodes offer, which are approved, and who serves them.
    #[command(aliases = ["lsr", "routes"])]
    ListRoutes {
        /// Only those of this node, by name or id.
        #[arg(short, long, value_name = "NODE")]
        identifier: Option<String>,
    },
    /// Set the routes that a node may serve: the full list. An exit route stands for both.
    ApproveRoutes {
        /// The node.
        #[command(flatten)]
        which: OneNode,
        /// Prefixes such as `192.168.1.0/24,0.0.0.0/0`; an empty text takes all away.
        #[arg(short, long, required = true, value_delimiter = ',')]
        routes: Vec<String>,
    },
    /// Give a node tags in the place of its user or of other tags.
    #[command(aliases = ["tags", "t"])]
    Tag {
        /// The node.
        #[command(flatten)]
        which: OneNode,
        /// Its tags, such as `tag:server,tag:web`.
        #[arg(short, long, required = true, value_delimiter = ',')]
        tags: Vec<String>,
    },
    /// Give a node to a user; its tags end.
    #[command(alias = "mv")]
    Move {
        /// The node.
        #[command(flatten)]
        which: OneNode,
        /// The new owner, by name or id.
        #[arg(short, long)]
        user: String,
    },
    /// Give a node other addresses, inside 100.64.0.0/10 and fd7a:115c:a1e0::/48.
    #[command(group(ArgGroup::new("address").args(["ipv4", "ipv6"]).required(true).multiple(true)))]
    SetIp {
        /// The node.
        #[command(flatten)]
        which: OneNode,
        /// Its new IPv4 address.
        #[arg(long, value_name = "ADDR")]
        ipv4: Option<Ipv4Addr>,
        /// Its new IPv6 address.
        #[arg(long, value_name = "ADDR")]
        ipv6: Option<Ipv6Addr>,
    },
    /// Give new addresses to all nodes whose addresses lie outside `prefixes.v4` and `prefixes.v6`.
    #[command(visible_alias = "backfillips")]
    BackfillIps,
    /// Let a node take part that waits for it.
    Approve {
        /// The node.
        #[command(flatten)]
        which: OneNode,
    },
    /// Let a node no longer take part: it sees nobody and nobody sees it.
    Disapprove {
        /// The node.
        #[command(flatten)]
        which: OneNode,
    },
    /// Add a device that has WireGuard and no Tailscale client.
    AddWireguard(NewWireGuard),
    /// Let a device in: Headscale's older form of `auth register`.
    #[command(hide = true)]
    Register {
        /// Owner of the device, by name or id.
        #[arg(short, long)]
        user: String,
        /// Id of the login.
        #[arg(short, long)]
        key: String,
    },
    /// Delete a node.
    #[command(alias = "del")]
    Delete {
        /// The node.
        #[command(flatten)]
        which: OneNode,
    },
    /// What only the node itself can do.
    #[command(flatten)]
    ToNode(ToNode),
}

/// Describes a device without a Tailscale client.
#[derive(Debug, ClapArgs)]
pub struct NewWireGuard {
    /// Its name in the tailnet.
    pub name: String,
    /// Its public key, as `wg show` prints it.
    #[arg(long)]
    pub key: String,
    /// Where it is reached, such as `203.0.113.5:51820`; several are tried.
    #[arg(long, required = true, value_name = "ADDR:PORT", value_delimiter = ',')]
    pub endpoint: Vec<String>,
    /// Its addresses in the tailnet, at most one of each family [default: the next free ones].
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub ip: Vec<IpAddr>,
    /// What lies behind it, such as `192.168.1.0/24`.
    #[arg(long, value_delimiter = ',')]
    pub routes: Vec<String>,
    /// Offer it as an exit node.
    #[arg(long)]
    pub exit_node: bool,
    /// Resolvers for those who use it as their exit node: addresses or `https://` URLs.
    #[arg(long, value_delimiter = ',', requires = "exit_node")]
    pub dns: Vec<String>,
    /// Addresses that it takes traffic for, one of each family at most, when it expects others than
    /// the tailnet's.
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub masquerade: Vec<IpAddr>,
    /// Owner, by name or id [default: the only user].
    #[arg(short, long, conflicts_with = "tags")]
    pub user: Option<String>,
    /// Tags; then it belongs to no user.
    #[arg(short, long, value_delimiter = ',')]
    pub tags: Vec<String>,
}
