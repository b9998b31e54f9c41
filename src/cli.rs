//! The command line: Headscale's verbs, aliases and flags where it has them.
//!
//! `args` says what may be typed, `commands` has a file for each command, and this file leads from one to the
//! other. All commands but `serve`, `derp`, `check`, `restore`, `repair`, `board`, `help`, `completion` and
//! `version` ask a running server over its socket.
//!
//! Source: headscale 0.29, `cmd/headscale/cli/*.go`.

pub mod client;
pub mod output;

mod args;
mod build;
mod commands;
mod context;
mod lookup;
mod root;

pub use args::{Args, Shell};
pub use commands::completion::script as completion_script;

use std::process::ExitCode;

use crate::{panics, store};
use args::{Command, DerpArgs};
use client::CliError;
use commands::{
    apikeys, audit, backup, board, check, completion, derp, dns, doctor, health, help, invite,
    nodes, pending, policy, preauthkeys, repair, restore, serve, ssh, status, users, version, wan,
};
use context::Ctx;
use output::{Output, print_error};

/// Runs the program. The exit code is 0 on success, 1 when something was refused or failed, and 2 when the
/// command line is invalid.
pub fn run() -> ExitCode {
    panics::abort_on_panic();
    if let Some(code) = store::answer() {
        return code;
    }
    let args = root::parse();
    match args.command {
        Command::Serve(flags) => serve::run(flags, args.socket),
        Command::Derp(DerpArgs {
            command: None,
            flags,
        }) => derp::serve(flags, args.socket),
        #[cfg(feature = "policy-tools")]
        Command::Policy(args::PolicyCommand::Eval) => {
            let (input, output) = (std::io::stdin().lock(), std::io::stdout().lock());
            match commands::policy_eval::run(input, output) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    print_error(args.output, &error, None);
                    ExitCode::FAILURE
                }
            }
        }
        command => {
            let ctx = Ctx::new(args.socket, args.output, args.force);
            match dispatch(&ctx, command) {
                Ok(output) => match output.print() {
                    Ok(()) => ExitCode::from(output.exit),
                    Err(fault) => {
                        let error = format!("cannot write the result: {fault}");
                        print_error(ctx.format, &error, None);
                        ExitCode::FAILURE
                    }
                },
                Err(error) => {
                    print_error(ctx.format, &error.to_string(), error.hint().as_deref());
                    ExitCode::FAILURE
                }
            }
        }
    }
}

/// Carries out a command that has one result.
fn dispatch(ctx: &Ctx, command: Command) -> Result<Output, CliError> {
    match command {
        Command::Status => status::run(ctx),
        Command::Invite(args) => invite::run(ctx, args),
        Command::Doctor { all } => doctor::run(ctx, all),
        Command::Help { topic } => help::run(ctx, &topic),
        Command::Nodes(command) => nodes::run(ctx, command),
        Command::Pending(command) => pending::run(ctx, command),
        Command::Users(command) => users::run(ctx, command),
        Command::Preauthkeys(command) => preauthkeys::run(ctx, command),
        Command::Ssh(command) => ssh::run(ctx, command),
        Command::Auth(command) => pending::run_auth(ctx, command),
        Command::Policy(command) => policy::run(ctx, command),
        Command::Dns(command) => dns::run(ctx, command),
        Command::Wan { command } => wan::run(ctx, command),
        Command::Check(args) => match args.data {
            Some(dir) => repair::check(ctx, dir, args.flags),
            None => Ok(check::run(ctx, args.flags)),
        },
        Command::Backup(args) => backup::run(ctx, args),
        Command::Restore(args) => restore::run(ctx, args),
        Command::Repair(args) => repair::run(ctx, args),
        Command::Health { alive } => health::run(ctx, alive),
        Command::Derp(_) => derp::status(ctx),
        Command::Board(args) => board::run(ctx, args),
        Command::Audit { limit } => audit::run(ctx, limit),
        Command::Apikeys(command) => apikeys::run(ctx, command),
        Command::Completion { shell } => Ok(completion::run(shell)),
        Command::Version => Ok(version::run(ctx)),
        Command::Complete { words } => Ok(completion::complete(ctx, &words)),
        // It runs until it is stopped; `run` has started it.
        Command::Serve(_) => Ok(Output::default()),
    }
}

#[cfg(test)]
mod tests;
