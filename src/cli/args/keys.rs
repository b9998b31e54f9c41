//! Arguments of `hearth preauthkeys`, `hearth apikeys` and `hearth invite`.

use clap::{ArgAction, Args, Subcommand};

use super::values::{flag, key_end, scope};
use crate::config::moment::End;

/// `hearth invite`.
#[derive(Debug, Args)]
pub struct InviteArgs {
    /// Owner of the device, by name or ID [default: the only user].
    #[arg(short, long)]
    pub user: Option<String>,
    /// How long the key is valid: a duration, a date (until the end of that day in UTC), a time, or `never`.
    #[arg(short, long, default_value = "24h", value_parser = key_end)]
    pub expiration: End,
}

/// Names one preauth key.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct OnePreAuthKey {
    /// ID of the key.
    #[arg(value_name = "ID")]
    key: Option<u64>,
    /// ID of the key.
    #[arg(short, long)]
    id: Option<u64>,
}

impl OnePreAuthKey {
    /// The ID that is given.
    pub fn id(&self) -> String {
        self.key.or(self.id).unwrap_or_default().to_string()
    }
}

/// Commands about preauth keys.
#[derive(Debug, Subcommand)]
pub enum PreAuthKeys {
    /// Create a preauth key and print it. It is shown only once.
    #[command(aliases = ["c", "new", "add"])]
    Create {
        /// Owner of the devices, by name or ID.
        #[arg(short, long, required_unless_present = "tags")]
        user: Option<String>,
        /// Allow more than one device to join with it.
        #[arg(long)]
        reusable: bool,
        /// Delete the devices after they go offline.
        #[arg(long)]
        ephemeral: bool,
        /// How long the key is valid: a duration, a date (until the end of that day in UTC), a time, or `never`.
        #[arg(short, long, default_value = "1h", value_parser = key_end)]
        expiration: End,
        /// Tags of the devices, which then belong to no user.
        #[arg(long, value_delimiter = ',')]
        tags: Vec<String>,
        /// Approve the devices when they join (matters if `node.approval` is on).
        #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, value_parser = flag)]
        preauthorized: bool,
    },
    /// List preauth keys.
    #[command(aliases = ["ls", "show"])]
    List,
    /// Expire a preauth key now. Devices that joined with it stay.
    #[command(aliases = ["revoke", "exp", "e"])]
    Expire {
        /// The key.
        #[command(flatten)]
        which: OnePreAuthKey,
    },
    /// Delete a preauth key. Devices that joined with it stay.
    #[command(aliases = ["del", "rm", "d", "remove"])]
    Delete {
        /// The key.
        #[command(flatten)]
        which: OnePreAuthKey,
    },
}

/// Names one API key.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct OneApiKey {
    /// Prefix or ID of the key.
    #[arg(value_name = "KEY")]
    pub key: Option<String>,
    /// Prefix of the key, which may begin with `-`.
    #[arg(short, long, allow_hyphen_values = true)]
    pub prefix: Option<String>,
    /// ID of the key.
    #[arg(short, long)]
    pub id: Option<u64>,
}

/// Commands about API keys.
#[derive(Debug, Subcommand)]
pub enum ApiKeys {
    /// Create an API key and print it. It is shown only once.
    #[command(aliases = ["c", "new", "add"])]
    Create {
        /// How long the key is valid: a duration, a date (until the end of that day in UTC), a time, or `never`.
        #[arg(short, long, default_value = "90d", value_parser = key_end)]
        expiration: End,
        /// What the key may do, such as `devices:core:read` or `policy_file`; repeat for more [default: all].
        #[arg(short, long = "scope", value_name = "SCOPE", value_delimiter = ',', value_parser = scope)]
        scopes: Vec<String>,
    },
    /// List API keys.
    #[command(aliases = ["ls", "show"])]
    List,
    /// Expire an API key now.
    #[command(aliases = ["revoke", "exp", "e"])]
    Expire {
        /// The key.
        #[command(flatten)]
        which: OneApiKey,
    },
    /// Delete an API key.
    #[command(aliases = ["remove", "del", "rm"])]
    Delete {
        /// The key.
        #[command(flatten)]
        which: OneApiKey,
    },
}
