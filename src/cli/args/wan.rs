//! Arguments of `hearth wan`.

use clap::Subcommand;

/// Commands about the public addresses.
#[derive(Debug, Subcommand)]
pub enum WanCommand {
    /// Look up the addresses now and send changes to clients. For hotplug and DHCP scripts.
    Refresh {
        /// Exit 3 unless the addresses changed since the last refresh.
        #[arg(long)]
        changed: bool,
    },
}
