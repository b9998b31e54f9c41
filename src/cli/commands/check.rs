//! `hearth check`.

use std::io;
use std::path::Path;

use serde_json::json;

use crate::cli::args::ServeFlags;
use crate::cli::context::Ctx;
use crate::cli::output::Output;
use crate::config::{Config, Surroundings, Warning};
use crate::files;
use hearth_core::policy::{MAX_BYTES, Policy};

/// Exit code when there are errors.
const ERRORS: u8 = 1;

/// Lists all errors of the configuration, and of the policy file that it names.
pub fn run(ctx: &Ctx, flags: ServeFlags) -> Output {
    let overrides = flags.overrides(ctx.socket.clone());
    let config = Config::load(overrides, &Surroundings::of_this_process());
    let mut warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    let policy = config.policy.file.as_deref().map(policy_errors);
    let policy = policy.unwrap_or_default();
    let is_faulty = !policy.is_empty() || config.warnings.iter().any(Warning::is_of_configuration);
    warnings.extend(policy);
    let file = config.file.as_ref().map(|path| path.display().to_string());
    let board = &config.board;
    let json = json!({ "file": file, "warnings": warnings, "board": board.name() });
    let output = ctx.output(&json, || {
        if !warnings.is_empty() {
            return warnings.join("\n");
        }
        match &file {
            Some(file) => format!("{file}: no errors (board: {})", board.name()),
            None => format!(
                "no configuration file; using the defaults for {}",
                board.name()
            ),
        }
    });
    match is_faulty {
        true => output.exit_code(ERRORS),
        false => output,
    }
}

/// Errors in the text of a policy. Whether it fits the tailnet only a running server knows.
fn policy_errors(path: &Path) -> Vec<String> {
    let file = path.display();
    let text = files::read(path, MAX_BYTES)
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| io::Error::other("not UTF-8 text")));
    match text.map(|text| Policy::parse(&text)) {
        Ok(Ok(_)) => Vec::new(),
        Ok(Err(faults)) => faults
            .iter()
            .map(|fault| format!("{file}:{}:{}: {}", fault.line, fault.column, fault.message))
            .collect(),
        Err(fault) => vec![format!("{file}: {fault}")],
    }
}
