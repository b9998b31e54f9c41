//! What the command line may say.

mod nodes;
mod policy;

pub use nodes::{NewWireGuard, Nodes, OneNode};
pub use policy::PolicyCommand;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand};

use super::client::{CliError, Client};
use super::contact::{self, Ssh};
use super::output::{Format, Output};
use super::wan::WanCommand;
use super::{dns, keys, pending, relay, server, users};

use crate::config::value::parse_duration;
use crate::config::{DnsName, ListenAddress, Overrides, ServerUrl};
use crate::system_clock;
use hearth_core::clock::Timestamp;

/// A Tailscale-compatible control server, relay and STUN responder in one small binary.
#[derive(Debug, Parser)]
#[command(name = "hearth", version = server::program(), about, long_about = None)]
pub struct Args {
    /// Print the result as JSON.
    #[arg(short, long, global = true, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// Socket of the server [default: hearth.sock in its data directory, or /var/run/hearth/hearth.sock].
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Accepted for scripts made for Headscale: no command asks back.
    #[arg(long, global = true, hide = true)]
    pub force: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server.
    Serve(ServeFlags),
    /// Run the relay and STUN alone, without a control server; or show how a relay is.
    #[command(args_conflicts_with_subcommands = true)]
    Derp(DerpArgs),
    /// Check the configuration, and fail when something is wrong with it.
    #[command(visible_alias = "configtest")]
    Check(ServeFlags),
    /// Show which board this is taken for, and the limits that follow.
    #[command(args_conflicts_with_subcommands = true)]
    Board(BoardArgs),
    /// Show how the server is.
    Status,
    /// Make a single-use key, and show how a new device joins with it.
    Invite {
        /// Owner of the device, by name or id [default: the only user].
        #[arg(short, long)]
        user: Option<String>,
        /// How long the key is good.
        #[arg(short, long, default_value = "24h", value_parser = duration)]
        expiration: Duration,
    },
    /// Manage users.
    #[command(subcommand, alias = "user")]
    Users(Users),
    /// Manage nodes.
    #[command(subcommand, alias = "node")]
    Nodes(Nodes),
    /// Manage the keys with which devices join.
    #[command(subcommand, aliases = ["preauthkey", "authkey", "pre"])]
    Preauthkeys(PreAuthKeys),
    /// Decide about devices that wait for approval.
    #[command(subcommand)]
    Pending(Pending),
    /// The same with the words of Headscale.
    #[command(subcommand)]
    Auth(Auth),
    /// Manage DNS records.
    #[command(subcommand)]
    Dns(Dns),
    /// Decide about SSH connections that the policy wants confirmed.
    #[command(subcommand)]
    Ssh(Ssh),
    /// Show what clients reported was done on them.
    Audit,
    /// Manage the keys of the REST interface.
    #[command(subcommand, aliases = ["apikey", "api"])]
    Apikeys(ApiKeys),
    /// Manage the policy: who may reach whom.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Show the addresses outside and what clients are told of them.
    Wan {
        /// What to do.
        #[command(subcommand)]
        command: Option<WanCommand>,
    },
    /// Say what is right and wrong with this server and its way to the outside, and what to do. The exit
    /// code is 1 when there are problems.
    Doctor {
        /// Show details of what is good as well.
        #[arg(short, long)]
        all: bool,
    },
    /// Ask whether the server is well.
    Health,
    /// Show the version of this program.
    Version,
}

/// What to show about boards.
#[derive(Debug, ClapArgs)]
pub struct BoardArgs {
    /// Which boards.
    #[command(subcommand)]
    pub command: Option<BoardCommand>,
    /// Flags of the server, as it would be started with them.
    #[command(flatten)]
    pub flags: ServeFlags,
}

/// Which boards to show.
#[derive(Debug, Subcommand)]
pub enum BoardCommand {
    /// List all boards and classes of memory that hearth knows.
    List,
    /// Show one of them.
    Show {
        /// Its id, such as `glinet,gl-mt6000` or `memory-128`.
        id: String,
    },
}

/// What to do about the relay.
#[derive(Debug, ClapArgs)]
pub struct DerpArgs {
    /// Commands to a running relay.
    #[command(subcommand)]
    pub command: Option<DerpCommand>,
    /// Flags of the relay, those of the server.
    #[command(flatten)]
    pub flags: ServeFlags,
}

/// Commands to a running relay, one of its own or that of a server.
#[derive(Debug, Subcommand)]
pub enum DerpCommand {
    /// Show how the relay is and what it has done.
    Status,
}

/// Flags of the server; each comes before the key of the configuration file.
#[derive(Debug, Default, ClapArgs)]
pub struct ServeFlags {
    /// Configuration file [default: /etc/hearth/hearth.toml if it is there].
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the database, the keys and the certificate.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// What clients are told to connect to.
    #[arg(long, value_name = "URL")]
    server_url: Option<ServerUrl>,
    /// Address for plain HTTP, or `off`.
    #[arg(long, value_name = "ADDR")]
    http: Option<ListenAddress>,
    /// Address for HTTPS, or `off`.
    #[arg(long, value_name = "ADDR")]
    https: Option<ListenAddress>,
    /// Certificate chain (PEM).
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM).
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Address for STUN, or `off`.
    #[arg(long, value_name = "ADDR")]
    stun: Option<ListenAddress>,
    /// Domain of the nodes' names.
    #[arg(long, value_name = "NAME")]
    base_domain: Option<DnsName>,
    /// Board whose limits apply, a class of memory such as `memory-128`, or `auto`.
    #[arg(long, value_name = "ID")]
    board: Option<String>,
}

impl ServeFlags {
    /// The flags for the configuration.
    pub fn overrides(self, socket: Option<PathBuf>) -> Overrides {
        Overrides {
            config: self.config,
            data_dir: self.data_dir,
            server_url: self.server_url,
            http: self.http,
            https: self.https,
            tls_cert: self.tls_cert,
            tls_key: self.tls_key,
            stun: self.stun,
            base_domain: self.base_domain,
            board: self.board,
            socket,
        }
    }
}

/// Names one user.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub struct OneUser {
    /// Name or id of the user.
    pub user: Option<String>,
    /// Id of the user.
    #[arg(short, long, value_name = "ID")]
    pub identifier: Option<u64>,
    /// Name of the user.
    #[arg(short, long)]
    pub name: Option<String>,
}

/// Commands about users.
#[derive(Debug, Subcommand)]
pub enum Users {
    /// Make a user.
    #[command(aliases = ["c", "new"])]
    Create {
        /// Login name.
        name: String,
        /// Name to show.
        #[arg(short, long, default_value = "")]
        display_name: String,
        /// Mail address.
        #[arg(short, long, default_value = "")]
        email: String,
        /// Address of a picture.
        #[arg(short, long, default_value = "")]
        picture_url: String,
    },
    /// List users.
    #[command(aliases = ["ls", "show"])]
    List {
        /// Only the one with this id.
        #[arg(short, long, value_name = "ID")]
        identifier: Option<u64>,
        /// Only the one with this name.
        #[arg(short, long)]
        name: Option<String>,
        /// Only those with this mail address.
        #[arg(short, long)]
        email: Option<String>,
    },
    /// Give a user another name.
    #[command(alias = "mv")]
    Rename {
        /// The user.
        #[command(flatten)]
        who: OneUser,
        /// The new name.
        #[arg(short = 'r', long)]
        new_name: String,
    },
    /// Set what a user may do: it is told to the clients of the user's nodes, and rules may name it.
    SetRole {
        /// Name or id of the user.
        user: String,
        /// What it may do.
        #[arg(value_parser = ["owner", "admin", "member"])]
        role: String,
    },
    /// Set how long the keys of a user's nodes live, from each login on.
    SetExpiry {
        /// Name or id of the user.
        user: String,
        /// A time such as `90d`, `never`, or `default` for what the configuration says.
        #[arg(value_parser = key_life)]
        expiry: String,
    },
    /// Delete a user that has no nodes.
    #[command(visible_alias = "destroy")]
    Delete {
        /// The user.
        #[command(flatten)]
        who: OneUser,
    },
}

/// Names one preauth key.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub struct OnePreAuthKey {
    /// Id of the key.
    #[arg(value_name = "ID")]
    pub key: Option<u64>,
    /// Id of the key.
    #[arg(short, long)]
    pub id: Option<u64>,
}

/// Commands about preauth keys.
#[derive(Debug, Subcommand)]
pub enum PreAuthKeys {
    /// Make a key and print it: it is shown this once.
    #[command(aliases = ["c", "new"])]
    Create {
        /// Owner of the devices, by name or id.
        #[arg(short, long, required_unless_present = "tags")]
        user: Option<String>,
        /// Let more than one device join.
        #[arg(long)]
        reusable: bool,
        /// Delete the devices when they are away.
        #[arg(long)]
        ephemeral: bool,
        /// How long the key is good; `0` is for ever.
        #[arg(short, long, default_value = "1h", value_parser = duration)]
        expiration: Duration,
        /// Tags of the devices, which then belong to no user.
        #[arg(long, value_delimiter = ',')]
        tags: Vec<String>,
        /// Whether the devices take part at once where `node.approval` is on.
        #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
        preauthorized: bool,
    },
    /// List keys.
    #[command(aliases = ["ls", "show"])]
    List,
    /// End a key now.
    #[command(aliases = ["revoke", "exp", "e"])]
    Expire {
        /// The key.
        #[command(flatten)]
        which: OnePreAuthKey,
    },
    /// Delete a key.
    #[command(aliases = ["del", "rm", "d"])]
    Delete {
        /// The key.
        #[command(flatten)]
        which: OnePreAuthKey,
    },
}

/// Names one API key.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub struct OneApiKey {
    /// Prefix or id of the key.
    #[arg(value_name = "KEY")]
    pub key: Option<String>,
    /// Prefix of the key.
    #[arg(short, long)]
    pub prefix: Option<String>,
    /// Id of the key.
    #[arg(short, long)]
    pub id: Option<u64>,
}

/// Commands about API keys.
#[derive(Debug, Subcommand)]
pub enum ApiKeys {
    /// Make a key and print it: it is shown this once.
    #[command(aliases = ["c", "new"])]
    Create {
        /// How long the key is good; `0` is for ever.
        #[arg(short, long, default_value = "90d", value_parser = duration)]
        expiration: Duration,
    },
    /// List keys.
    #[command(aliases = ["ls", "show"])]
    List,
    /// End a key now.
    #[command(aliases = ["revoke", "exp", "e"])]
    Expire {
        /// The key.
        #[command(flatten)]
        which: OneApiKey,
    },
    /// Delete a key.
    #[command(aliases = ["remove", "del"])]
    Delete {
        /// The key.
        #[command(flatten)]
        which: OneApiKey,
    },
}

/// Commands about devices that wait.
#[derive(Debug, Subcommand)]
pub enum Pending {
    /// List devices that wait or were lately decided about.
    #[command(aliases = ["ls", "show"])]
    List,
    /// Let a device in.
    Approve {
        /// Id of the login: the last part of the URL that the device shows, or the whole URL.
        id: String,
        /// Owner of the device, by name or id [default: the only user].
        #[arg(short, long)]
        user: Option<String>,
    },
    /// Turn a device away.
    Reject {
        /// Id of the login: the last part of the URL that the device shows, or the whole URL.
        id: String,
    },
}

/// Headscale's commands about devices that wait.
#[derive(Debug, Subcommand)]
pub enum Auth {
    /// Let a device in as this user's.
    Register {
        /// Owner of the device, by name or id.
        #[arg(short, long)]
        user: String,
        /// Id of the login.
        #[arg(long)]
        auth_id: String,
    },
    /// Let a device in as the only user's.
    Approve {
        /// Id of the login.
        #[arg(long)]
        auth_id: String,
    },
    /// Turn a device away.
    Reject {
        /// Id of the login.
        #[arg(long)]
        auth_id: String,
    },
}

/// Names one DNS record, or several of the same name.
#[derive(Debug, ClapArgs)]
pub struct OneDnsRecord {
    /// Name of the record.
    pub name: String,
    /// Only the one with this value.
    pub value: Option<String>,
    /// Only those of this type: A, AAAA or ALIAS.
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
}

/// Commands about DNS records.
#[derive(Debug, Subcommand)]
pub enum Dns {
    /// List all records, those of the configuration as well.
    #[command(aliases = ["ls", "show"])]
    List,
    /// Add a record.
    #[command(aliases = ["create", "new"])]
    Add {
        /// Name; without a dot it is below the base domain.
        name: String,
        /// An address, or the name of a node, whose addresses it then has.
        value: String,
        /// A, AAAA or ALIAS [default: what fits the value].
        #[arg(
            short = 't',
            long = "type",
            value_name = "TYPE",
            default_value = "",
            hide_default_value = true
        )]
        kind: String,
    },
    /// Remove a record that was added so.
    #[command(aliases = ["del", "rm"])]
    Delete {
        /// The record.
        #[command(flatten)]
        which: OneDnsRecord,
    },
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("expected a time such as 90m, 24h or 180d")
}

fn key_life(text: &str) -> Result<String, &'static str> {
    let known = text == "default" || text == "never";
    if known || parse_duration(text).is_some_and(|life| !life.is_zero()) {
        return Ok(text.into());
    }
    Err("expected a time such as 90d, or `never`, or `default`")
}

fn moment(text: &str) -> Result<Timestamp, &'static str> {
    let from_now = || Some(system_clock::now().wall.plus(parse_duration(text)?));
    Timestamp::parse(text)
        .or_else(from_now)
        .ok_or("expected a time such as 2027-01-31T12:00:00Z, or from now, such as 30d")
}

/// When something ends that is good for so long; `None` is never.
pub fn end_of(lifetime: Duration) -> Option<Timestamp> {
    (!lifetime.is_zero()).then(|| system_clock::now().wall.plus(lifetime))
}

/// Carries out a command that needs the server.
pub fn dispatch(
    command: Command,
    client: &Client,
    format: Option<Format>,
) -> Result<Output, CliError> {
    match command {
        Command::Status => server::status(client, format),
        Command::Derp(_) => relay::status(client, format),
        Command::Wan { command } => super::wan::run(command, client, format),
        Command::Doctor { all } => super::doctor::run(client, format, all),
        Command::Health => server::health(client, format),
        Command::Invite { user, expiration } => {
            keys::invite(client, format, user, end_of(expiration))
        }
        Command::Users(command) => users::run(command, client, format),
        Command::Nodes(command) => super::nodes::run(command, client, format),
        Command::Preauthkeys(command) => keys::run_preauth(command, client, format),
        Command::Apikeys(command) => keys::run_api(command, client, format),
        Command::Dns(command) => dns::run(command, client, format),
        Command::Policy(command) => super::policy::run(command, client, format),
        Command::Pending(Pending::List) => pending::list(client, format),
        Command::Pending(Pending::Approve { id, user }) => {
            pending::approve(client, format, &id, user.as_deref())
        }
        Command::Auth(Auth::Register { user, auth_id }) => {
            pending::approve(client, format, &auth_id, Some(&user))
        }
        Command::Auth(Auth::Approve { auth_id }) => {
            pending::approve(client, format, &auth_id, None)
        }
        Command::Pending(Pending::Reject { id: auth_id })
        | Command::Auth(Auth::Reject { auth_id }) => pending::reject(client, format, &auth_id),
        Command::Ssh(command) => contact::ssh(command, client, format),
        Command::Audit => contact::audit(client, format),
        Command::Version => Ok(server::version(format)),
        // These run here and not in the server; `run` has carried them out before.
        Command::Serve(_) | Command::Check(_) | Command::Board(_) => Ok(Output::default()),
    }
}
