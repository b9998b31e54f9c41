//! Arguments of `hearth nodes c2n` and its relatives: what a connected node carries out itself.

use clap::Subcommand;

/// Commands that a node carries out itself. It must be connected.
#[derive(Debug, Subcommand)]
pub enum Remote {
    /// Send a request to a node over its control connection (control-to-node, C2N).
    C2n {
        /// Name or ID of the node.
        node: String,
        /// echo, goroutines, health, metrics, netmap, prefs, update, or a path.
        what: String,
        /// HTTP method.
        #[arg(short = 'X', long, default_value = "GET")]
        method: String,
        /// Request body.
        #[arg(short, long, default_value = "", hide_default_value = true)]
        data: String,
    },
    /// Make a node ping another node, or this server.
    Ping {
        /// Name or ID of the node.
        node: String,
        /// Address, name or ID of the other node [default: this server, over HTTP].
        target: Option<String>,
        /// disco, TSMP, ICMP or peerapi; separate several with commas.
        #[arg(short, long, value_delimiter = ',', default_value = "disco")]
        types: Vec<String>,
    },
    /// Make a node update its client, if its user allows that.
    Update {
        /// Name or ID of the node.
        node: String,
    },
    /// Make a node wake a machine in its LAN (Wake-on-LAN).
    Wol {
        /// Name or ID of a node in the same LAN.
        via: String,
        /// MAC address of the machine to wake, such as 00:11:22:33:44:55.
        mac: String,
    },
    /// Show the status of a node's HTTPS certificate.
    Cert {
        /// Name or ID of the node.
        node: String,
        /// Domain of the certificate.
        domain: String,
    },
    /// Open a URL in the browser of a node's user.
    Open {
        /// Name or ID of the node.
        node: String,
        /// The URL.
        url: String,
    },
    /// Show or set a node's posture attributes.
    #[command(alias = "attrs")]
    Attributes {
        /// Name or ID of the node.
        node: String,
        /// `custom:name=value` sets an attribute, `custom:name=` removes it.
        changes: Vec<String>,
    },
}
