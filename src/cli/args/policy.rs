//! Arguments of `hearth policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[cfg(feature = "policy-tools")]
use hearth_core::policy::TEMPLATES;

/// Names a policy file.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct PolicyFile {
    /// The file, or `-` for standard input.
    #[arg(value_name = "FILE")]
    path: Option<PathBuf>,
    /// The file.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl PolicyFile {
    /// The path that is given.
    pub fn path(self) -> PathBuf {
        self.path.or(self.file).unwrap_or_default()
    }
}

/// Commands about the policy.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Print the policy.
    #[command(aliases = ["show", "view", "fetch"])]
    Get {
        /// An older version; see `hearth policy history`.
        #[arg(long, value_name = "VERSION")]
        version: Option<u64>,
    },
    /// Set the policy. It takes effect at once, unless it has errors or its tests fail.
    #[command(aliases = ["put", "update"])]
    Set {
        /// The file.
        #[command(flatten)]
        file: PolicyFile,
    },
    /// Check a policy without setting it. Without a running server only the syntax is checked, not names or tests.
    #[command(alias = "validate")]
    Check {
        /// The file.
        #[command(flatten)]
        file: PolicyFile,
    },
    /// List the versions that are kept.
    #[command(alias = "versions")]
    History,
    /// Restore an older version of the policy.
    Rollback {
        /// The version [default: the one before the newest].
        version: Option<u64>,
    },
    /// Show whether traffic is allowed, and by which rule, or why not.
    Why {
        /// Source: name or address of a node, a tag, or a user (all of the user's nodes).
        src: String,
        /// Destination with a port, such as `nas:22` or `[fd7a:115c:a1e0::1]:22`.
        #[arg(value_name = "DST:PORT")]
        dst: String,
        /// Protocol name or number. Only tcp, udp and sctp need a port.
        #[arg(long, default_value = "tcp")]
        proto: String,
    },
    #[cfg(feature = "policy-tools")]
    /// Print a policy to start from, with tests.
    Template {
        /// Name of the template.
        #[arg(value_parser = TEMPLATES)]
        name: String,
    },
    #[cfg(feature = "policy-tools")]
    /// Read made-up tailnets from standard input, one JSON object per line, and print what each node would receive.
    Eval,
}
