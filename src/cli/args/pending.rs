//! Arguments of `hearth pending` and `hearth auth`.

use clap::{Args, Subcommand};

/// Names one pending registration.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct OnePending {
    /// Name or short key of the device, ID of the registration, or the URL that the device shows.
    pub device: Option<String>,
    /// The newest one.
    #[arg(long)]
    pub last: bool,
}

/// Commands about devices that wait to join.
#[derive(Debug, Subcommand)]
pub enum Pending {
    /// List pending registrations and recent decisions.
    #[command(aliases = ["ls", "show"])]
    List,
    /// Approve a device: it joins.
    #[command(alias = "accept")]
    Approve {
        /// The device.
        #[command(flatten)]
        which: OnePending,
        /// Owner of the device, by name or ID [default: the only user].
        #[arg(short, long)]
        user: Option<String>,
        /// Approve it with the tags that it requests; it then belongs to these instead of a user.
        #[arg(long)]
        tags: bool,
    },
    /// Reject a device.
    #[command(alias = "deny")]
    Reject {
        /// The device.
        #[command(flatten)]
        which: OnePending,
    },
}

/// Headscale's commands about devices that wait to join.
#[derive(Debug, Subcommand)]
pub enum Auth {
    /// Approve a device as a device of this user.
    Register {
        /// Owner of the device, by name or ID.
        #[arg(short, long)]
        user: String,
        /// ID of the registration.
        #[arg(long)]
        auth_id: String,
        /// Approve it with the tags that it requests.
        #[arg(long)]
        tags: bool,
    },
    /// Approve a device as a device of the only user, or an SSH connection.
    Approve {
        /// ID of the registration.
        #[arg(long)]
        auth_id: String,
        /// Approve a device with the tags that it requests.
        #[arg(long)]
        tags: bool,
    },
    /// Reject a device or an SSH connection.
    Reject {
        /// ID of the registration.
        #[arg(long)]
        auth_id: String,
    },
}
