//! Arguments of the command line: types only. `cli` carries them out.

mod backup;
mod board;
mod derp;
mod dns;
mod keys;
mod nodes;
mod pending;
mod policy;
mod remote;
mod serve;
mod ssh;
mod users;
mod values;
mod wan;

pub use backup::{BackupArgs, CheckArgs, RepairArgs, RestoreArgs};
pub use board::{BoardArgs, BoardCommand};
pub use derp::DerpArgs;
pub use dns::{Dns, OneDnsRecord};
pub use keys::{ApiKeys, InviteArgs, OneApiKey, PreAuthKeys};
pub use nodes::{NewWireGuard, NodeAndName, Nodes};
pub use pending::{Auth, OnePending, Pending};
pub use policy::PolicyCommand;
pub use remote::Remote;
pub use serve::ServeFlags;
pub use ssh::{OneSsh, Ssh};
pub use users::Users;
pub use values::given;
pub use wan::WanCommand;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use super::build;
use super::output::Format;

/// A Tailscale-compatible control server, DERP relay and STUN server in one small binary.
#[derive(Debug, Parser)]
#[command(
    name = "hearth",
    version = build::version(),
    about,
    long_about = None,
    disable_help_subcommand = true,
    after_help = "`hearth COMMAND --help` shows the details of a command, `hearth help` lists topics with examples."
)]
pub struct Args {
    /// Output format: table, json, json-line or yaml.
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "table",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub output: Format,
    /// Socket of the server [default: hearth.sock in its data directory, or /var/run/hearth/hearth.sock].
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Do not ask for confirmation.
    #[arg(long, global = true)]
    pub force: bool,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show server status.
    Status,
    /// Create a single-use preauth key and show how a device joins with it.
    Invite(InviteArgs),
    /// Diagnose this server and its connectivity, and suggest fixes. Exits 1 if there are problems.
    Doctor {
        /// Show details of passed checks too.
        #[arg(short, long)]
        all: bool,
    },
    /// Show examples for common tasks, or help for a command.
    Help {
        /// A topic or a command.
        topic: Vec<String>,
    },
    /// Manage nodes: list, approve, rename, tag, routes, expire, delete.
    #[command(subcommand, aliases = ["node", "machines", "machine", "devices", "device"])]
    Nodes(Nodes),
    /// Approve or reject devices that wait to join.
    #[command(subcommand)]
    Pending(Pending),
    /// Manage users.
    #[command(subcommand, aliases = ["user", "namespaces", "namespace", "ns"])]
    Users(Users),
    /// Manage preauth keys, with which devices join.
    #[command(subcommand, aliases = ["preauthkey", "authkey", "authkeys", "pre"])]
    Preauthkeys(PreAuthKeys),
    /// Approve or reject SSH connections that the policy wants confirmed.
    #[command(subcommand)]
    Ssh(Ssh),
    /// Approve or reject pending devices (Headscale-compatible spelling).
    #[command(subcommand)]
    Auth(Auth),
    /// Manage the policy: who may reach what.
    #[command(subcommand, aliases = ["acl", "acls"])]
    Policy(PolicyCommand),
    /// Manage DNS records.
    #[command(subcommand)]
    Dns(Dns),
    /// Show public addresses and what is advertised to clients.
    Wan {
        /// The command.
        #[command(subcommand)]
        command: Option<WanCommand>,
    },
    /// Run the server.
    Serve(ServeFlags),
    /// Check the configuration, or with --data the data. Exits 1 if there are errors.
    #[command(visible_alias = "configtest")]
    Check(CheckArgs),
    /// Make a backup of the server in one file, or a recovery sheet.
    Backup(BackupArgs),
    /// Restore a backup, while hearth is stopped.
    Restore(RestoreArgs),
    /// Repair the data directory, while hearth is stopped. Keeps the originals.
    Repair(RepairArgs),
    /// Check server health. Exits 1 if the server is unhealthy or does not answer.
    Health {
        /// Ignore a read-only database. For service managers, since a restart does not repair a disk.
        #[arg(long)]
        alive: bool,
    },
    /// Run the DERP relay and STUN server alone, or show relay statistics.
    #[command(args_conflicts_with_subcommands = true)]
    Derp(DerpArgs),
    /// Show the detected board and its resource limits.
    #[command(args_conflicts_with_subcommands = true)]
    Board(BoardArgs),
    /// Show the audit log.
    Audit {
        /// Number of entries of each list, the newest; at most 1000.
        #[arg(short = 'n', long, value_name = "N", default_value_t = 100, value_parser = values::entries)]
        limit: u32,
    },
    /// Manage API keys, with which programs use the REST API.
    #[command(subcommand, aliases = ["apikey", "api"])]
    Apikeys(ApiKeys),
    /// Print the completion script of a shell.
    Completion {
        /// bash, zsh or fish.
        #[arg(hide_possible_values = true)]
        shell: Shell,
    },
    /// Show the version.
    Version,
    /// Print what could complete a command line, for the completion scripts.
    #[command(name = "__complete", hide = true)]
    Complete {
        /// Words after `hearth`; the last one is to be completed.
        #[arg(last = true)]
        words: Vec<String>,
    },
}

/// A shell with completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU Bash.
    Bash,
    /// Zsh.
    Zsh,
    /// Fish.
    Fish,
}
