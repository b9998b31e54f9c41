//! `hearth check --data` and `hearth repair`.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::backup::inspect::{Finding, Place, State, inspect, worst};
use crate::backup::locked::{LockFault, is_running, lock};
use crate::cli::args::{RepairArgs, ServeFlags};
use crate::cli::client::CliError;
use crate::cli::context::Ctx;
use crate::cli::output::{Output, cell};
use crate::config::{Config, Surroundings};
use crate::system_clock;

/// Exit code when repair helps, or a step of it failed.
const DAMAGED: u8 = 1;
/// Exit code when nothing here helps.
const LOST: u8 = 3;

/// Checks a data directory and says what repair would do. Never writes.
pub fn check(ctx: &Ctx, dir: Option<PathBuf>, flags: ServeFlags) -> Result<Output, CliError> {
    let place = place(ctx, dir, false, flags);
    if is_running(&place.data_dir) {
        let path = place.data_dir;
        return Err(CliError::Command(LockFault::Running { path }.to_string()));
    }
    let findings = looked(&place)?;
    let json = json(&findings);
    let output = ctx.output(&json, || lines(&findings, "repair would"));
    let output = match worst(&findings) {
        State::Sound => output,
        State::Damaged => output
            .exit_code(DAMAGED)
            .note("`hearth repair` does what is shown, and keeps the originals."),
        State::Lost => output.exit_code(LOST).note(BEYOND),
    };
    Ok(output)
}

/// What helps where repair does not.
const BEYOND: &str = "`hearth restore FILE` restores a backup. Without one the tailnet is lost: start with an empty data directory, and \
                      join every device again.";

/// Carries out what the check shows.
pub fn run(ctx: &Ctx, args: RepairArgs) -> Result<Output, CliError> {
    let place = place(ctx, args.dir, args.salvage, args.flags);
    let locked = lock(&place.data_dir);
    let _locked = locked.map_err(|fault| CliError::Command(fault.to_string()))?;
    let findings = looked(&place)?;
    let steps: Vec<_> = findings.iter().flat_map(|finding| &finding.steps).collect();
    if !steps.is_empty() {
        let text: Vec<String> = steps.iter().map(|step| step.describe()).collect();
        ctx.confirm(|| Ok(text.join(", ")))?;
    }
    let now = system_clock::now().wall;
    let (mut done, mut failed) = (Vec::new(), false);
    for step in steps {
        let (what, result) = (step.describe(), step.carry_out(now));
        failed |= result.is_err();
        let result = result.unwrap_or_else(|fault| format!("failed: {fault}"));
        done.push((what, result));
    }
    let json = json!({
        "findings": json(&findings),
        "done": done.iter().map(|(what, result)| json!({ "step": what, "result": result })).collect::<Vec<_>>(),
    });
    let output = ctx.output(&json, || {
        let mut text: Vec<String> = done
            .iter()
            .map(|(what, result)| format!("{}: {}", cell(what), cell(result)))
            .collect();
        if text.is_empty() {
            text.push(lines(&findings, "repair would"));
        }
        text.join("\n")
    });
    let is_lost = worst(&findings) == State::Lost;
    Ok(match (is_lost, failed) {
        (true, _) => output.exit_code(LOST).note(BEYOND),
        (false, true) => output.exit_code(DAMAGED),
        (false, false) => output,
    })
}

fn place(ctx: &Ctx, dir: Option<PathBuf>, salvage: bool, flags: ServeFlags) -> Place {
    let surroundings = Surroundings::of_this_process();
    let config = Config::load(flags.overrides(ctx.socket.clone()), &surroundings);
    Place {
        data_dir: dir.unwrap_or(config.data_dir),
        copies: config.backup.directory,
        salvage,
    }
}

fn looked(place: &Place) -> Result<Vec<Finding>, CliError> {
    let findings = inspect(place);
    findings.map_err(|fault| CliError::Command(fault.to_string()))
}

fn lines(findings: &[Finding], would: &str) -> String {
    let mut lines = Vec::new();
    for finding in findings {
        let (subject, state) = (cell(&finding.subject), finding.state.word());
        lines.push(format!("{state:<8} {subject}: {}", finding.detail));
        for step in &finding.steps {
            lines.push(format!("         {would} {}", step.describe()));
        }
    }
    lines.join("\n")
}

fn json(findings: &[Finding]) -> Value {
    let findings = findings.iter().map(|finding| {
        let steps = finding.steps.iter().map(|step| step.describe());
        json!({
            "subject": finding.subject,
            "state": finding.state.word(),
            "detail": finding.detail,
            "repair": steps.collect::<Vec<_>>(),
        })
    });
    findings.collect()
}
