//! Arguments of `hearth dns`.

use clap::{Args, Subcommand};

/// Names one DNS record, or several of the same name.
#[derive(Debug, Args)]
pub struct OneDnsRecord {
    /// Name of the record.
    pub name: String,
    /// Only the record with this value.
    pub value: Option<String>,
    /// Only records of this type: A, AAAA or ALIAS.
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
}

/// Commands about DNS records.
#[derive(Debug, Subcommand)]
pub enum Dns {
    /// List DNS records, including those of the configuration.
    #[command(aliases = ["ls", "show"])]
    List,
    /// Add a DNS record.
    #[command(aliases = ["create", "new"])]
    Add {
        /// Name; without a dot it is a name in the base domain.
        name: String,
        /// IP address, or the name of a node for an alias that follows its addresses.
        value: String,
        /// A, AAAA or ALIAS [default: by the value].
        #[arg(
            short = 't',
            long = "type",
            value_name = "TYPE",
            default_value = "",
            hide_default_value = true
        )]
        kind: String,
    },
    /// Delete DNS records that were added with `hearth dns add`.
    #[command(aliases = ["del", "rm", "remove"])]
    Delete {
        /// The record.
        #[command(flatten)]
        which: OneDnsRecord,
    },
}
