//! The command line: Headscale's verbs, aliases and flags where it has them.
//!
//! Source: headscale 0.29, `cmd/headscale/cli/*.go`. All commands but `serve`, `check`, `board`
//! and `version` ask a running server over its socket.

pub mod client;
pub mod output;

mod args;
mod board;
mod contact;
mod dns;
mod doctor;
mod keys;
mod nodes;
mod pending;
mod policy;
#[cfg(feature = "policy-tools")]
mod policy_eval;
mod relay;
mod routes;
mod server;
mod users;
mod wan;
mod wireguard;

pub use args::Args;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;

use crate::config::{Config, Overrides, SOCKET_NAME, SYSTEM_DATA_DIR, SYSTEM_SOCKET, Surroundings};
use crate::panics;
use args::{BoardArgs, Command, DerpArgs};
use client::{CliError, Client};
use output::{Format, Output};

/// Environment variable with the path of the socket.
pub const SOCKET_VARIABLE: &str = "HEARTH_SOCKET";

/// Runs the program. The exit code is 0 when all went well, 1 when something was refused or failed,
/// and 2 when the command line was not understood.
pub fn run() -> ExitCode {
    panics::abort_on_panic();
    let args = Args::parse();
    let format = args.output;
    let outcome = match args.command {
        Command::Serve(flags) => return server::serve(flags.overrides(args.socket)),
        Command::Derp(DerpArgs {
            command: None,
            flags,
        }) => return relay::serve(flags.overrides(args.socket)),
        Command::Check(flags) => return server::check(flags.overrides(args.socket), format),
        Command::Board(BoardArgs { command, flags }) => {
            board::run(command, flags.overrides(args.socket), format)
        }
        Command::Version => Ok(server::version(format)),
        #[cfg(feature = "policy-tools")]
        Command::Policy(args::PolicyCommand::Eval) => {
            return match policy_eval::run(io::stdin().lock(), io::stdout().lock()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(fault) => {
                    print_fault(&fault, format);
                    ExitCode::FAILURE
                }
            };
        }
        command => ask(command, args.socket, format),
    };
    match outcome {
        Ok(output) => {
            print(&output);
            ExitCode::from(output.exit)
        }
        Err(fault) => {
            print_fault(&fault.to_string(), format);
            ExitCode::FAILURE
        }
    }
}

fn ask(
    command: Command,
    socket: Option<PathBuf>,
    format: Option<Format>,
) -> Result<Output, CliError> {
    let variable = || std::env::var_os(SOCKET_VARIABLE).map(PathBuf::from);
    let socket = socket.or_else(variable).unwrap_or_else(usual_socket);
    args::dispatch(command, &Client::new(&socket), format)
}

/// The socket of the server that the default configuration describes. A person without a server of
/// their own means that of the system.
fn usual_socket() -> PathBuf {
    let config = Config::load(Overrides::default(), &Surroundings::of_this_process());
    let of_system = Path::new(SYSTEM_DATA_DIR).join(SOCKET_NAME);
    first_there([config.socket, of_system, SYSTEM_SOCKET.into()])
}

/// The first of these sockets that is there, or else the first one, which messages then name.
fn first_there<const N: usize>(sockets: [PathBuf; N]) -> PathBuf {
    // Not being allowed to look is a sign of its being there.
    let is_there = |path: &Path| match path.metadata() {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    let there = sockets.iter().find(|path| is_there(path)).cloned();
    there.unwrap_or_else(|| sockets.into_iter().next().unwrap_or_default())
}

fn print(output: &Output) {
    // A reader that closed the pipe early has what it wanted.
    if !output.result.is_empty() {
        let _ = writeln!(io::stdout().lock(), "{}", output.result);
    }
    if !output.notes.is_empty() {
        let _ = writeln!(io::stderr().lock(), "{}", output.notes);
    }
}

fn print_fault(message: &str, format: Option<Format>) {
    let text = Output::of(format, &serde_json::json!({ "error": message }), || {
        format!("Error: {message}")
    });
    let _ = writeln!(io::stderr().lock(), "{}", text.result);
}

#[cfg(test)]
mod tests;
