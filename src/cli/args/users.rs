//! Arguments of `hearth users`.

use clap::{Args, Subcommand};

use super::values::key_lifetime;

/// Names one user.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct OneUser {
    /// Name or ID of the user.
    pub user: Option<String>,
    /// ID of the user.
    #[arg(short, long, value_name = "ID")]
    pub identifier: Option<u64>,
    /// Name of the user.
    #[arg(short, long)]
    pub name: Option<String>,
}

impl OneUser {
    /// The name or ID that is given.
    pub fn text(self) -> String {
        let id = self.identifier.map(|id| id.to_string());
        self.user.or(id).or(self.name).unwrap_or_default()
    }
}

/// Commands about users.
#[derive(Debug, Subcommand)]
pub enum Users {
    /// Create a user.
    #[command(aliases = ["c", "new", "add"])]
    Create {
        /// Login name.
        name: String,
        /// Display name.
        #[arg(short, long, default_value = "", hide_default_value = true)]
        display_name: String,
        /// Email address.
        #[arg(short, long, default_value = "", hide_default_value = true)]
        email: String,
        /// URL of a profile picture.
        #[arg(short, long, default_value = "", hide_default_value = true)]
        picture_url: String,
    },
    /// List users.
    #[command(aliases = ["ls", "show"])]
    List {
        /// Only the user with this ID.
        #[arg(short, long, value_name = "ID")]
        identifier: Option<u64>,
        /// Only the user with this name.
        #[arg(short, long)]
        name: Option<String>,
        /// Only users with this email address.
        #[arg(short, long)]
        email: Option<String>,
    },
    /// Rename a user.
    #[command(alias = "mv")]
    Rename {
        /// The user.
        #[command(flatten)]
        who: OneUser,
        /// New name.
        #[arg(
            value_name = "NEW_NAME",
            required_unless_present = "new_name",
            conflicts_with = "new_name"
        )]
        new: Option<String>,
        /// New name.
        #[arg(short = 'r', long)]
        new_name: Option<String>,
    },
    /// Set a user's role, which policy rules can name and the user's devices can see.
    SetRole {
        /// Name or ID of the user.
        user: String,
        /// Role.
        #[arg(value_parser = ["owner", "admin", "member"])]
        role: String,
    },
    /// Set how long the node keys of a user's devices are valid after each login.
    SetExpiry {
        /// Name or ID of the user.
        user: String,
        /// A duration such as `90d`, `never`, or `default` for the value of the configuration.
        #[arg(value_parser = key_lifetime)]
        expiry: String,
    },
    /// Delete a user that has no nodes.
    #[command(visible_alias = "destroy", aliases = ["del", "rm", "remove"])]
    Delete {
        /// The user.
        #[command(flatten)]
        who: OneUser,
    },
}
