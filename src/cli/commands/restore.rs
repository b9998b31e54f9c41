//! `hearth restore`.

use std::path::Path;

use serde_json::json;
use zeroize::Zeroizing;

use crate::backup::open::Secrets;
use crate::backup::restore::{Restored, Target, restore};
use crate::cli::args::RestoreArgs;
use crate::cli::client::CliError;
use crate::cli::context::Ctx;
use crate::cli::output::{Output, ask_secret, card, cell};
use crate::config::{Config, Surroundings};
use crate::files;
use crate::system_clock;
use hearth_core::age::Identity;

/// Longest file with a passphrase or identities, in bytes.
const MOST_SECRET: usize = 64 << 10;
/// Part of the memory that the work of a passphrase may use: one in so many.
const MEMORY_PART: u64 = 2;

/// Restores a backup.
pub fn run(ctx: &Ctx, args: RestoreArgs) -> Result<Output, CliError> {
    let surroundings = Surroundings::of_this_process();
    let memory = surroundings.machine.memory.unwrap_or(u64::MAX) / MEMORY_PART;
    let config = Config::load(args.flags.overrides(ctx.socket.clone()), &surroundings);
    let identities = match &args.identity {
        Some(path) => identities(path)?,
        None => Vec::new(),
    };
    let from_file = args
        .passphrase_file
        .as_deref()
        .map(first_line)
        .transpose()?;
    let mut passphrase = || match &from_file {
        Some(passphrase) => Ok(Some(passphrase.clone())),
        None => ask_secret("Passphrase of the backup: "),
    };
    let target = Target {
        data_dir: config.data_dir,
        settings_dir: args.settings_dir,
        replace: ctx.is_forced(),
    };
    let mut secrets = Secrets {
        passphrase: &mut passphrase,
        identities: &identities,
        memory,
    };
    let now = system_clock::now().wall;
    let restored = restore(&args.file, &target, &mut secrets, now);
    let restored = restored.map_err(|fault| {
        let text = format!("{}: {fault}; nothing was changed", args.file.display());
        CliError::Command(text)
    })?;
    let json = json!({
        "dataDir": target.data_dir,
        "manifest": restored.manifest,
        "nodes": restored.nodes,
        "users": restored.users,
        "noiseKey": restored.noise_key,
        "certificate": restored.certificate,
        "settings": restored.settings,
        "kept": restored.kept,
        "notes": restored.notes,
    });
    let output = ctx.output(&json, || text(&restored, &target));
    Ok(output.note(&notes(&restored, &target)))
}

fn text(restored: &Restored, target: &Target) -> String {
    let mut lines = vec![
        ("Restored to", target.data_dir.display().to_string()),
        ("Nodes", restored.nodes.to_string()),
        ("Users", restored.users.to_string()),
        ("Noise key", restored.noise_key.clone()),
    ];
    let certificate = restored.certificate.as_deref().unwrap_or("none");
    lines.push(("Certificate", certificate.to_owned()));
    if let Some(manifest) = &restored.manifest {
        lines.push(("Backup of", cell(&manifest.server_url)));
        lines.push(("Made", manifest.created.to_string()));
        lines.push(("By hearth", cell(&manifest.hearth)));
    }
    let settings = restored.settings.iter();
    lines.extend(settings.map(|path| ("Settings", path.display().to_string())));
    if let Some(kept) = &restored.kept {
        lines.push(("Kept", format!("what was there, in {}", kept.display())));
    }
    card(&lines)
}

fn notes(restored: &Restored, target: &Target) -> String {
    let mut notes = restored.notes.clone();
    if let Some(manifest) = &restored.manifest {
        let settings = manifest
            .settings
            .iter()
            .filter(|_| target.settings_dir.is_none());
        notes.extend(settings.map(|setting| {
            let (name, path) = (cell(&setting.name), cell(&setting.path));
            format!(
                "{name} was {path} and is not in use: compare it with the settings of this machine."
            )
        }));
        notes.push(format!(
            "Devices connect to {}: it has to lead to this machine, and the old server must not run any more.",
            cell(&manifest.server_url)
        ));
    }
    notes.push(
        "Start hearth now; `hearth status` and `hearth nodes list` show the result.".to_owned(),
    );
    notes.join("\n")
}

/// The first line of a file, which is a passphrase.
pub(super) fn first_line(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let text = text_of(path)?;
    let line = text.lines().next().unwrap_or_default();
    match line.is_empty() {
        true => Err(CliError::Command(format!(
            "{}: the first line is empty",
            path.display()
        ))),
        false => Ok(Zeroizing::new(line.to_owned())),
    }
}

/// The identities in a file of `age-keygen`.
pub(super) fn identities(path: &Path) -> Result<Vec<Identity>, CliError> {
    let found = Identity::list(&text_of(path)?);
    let found = found.map_err(|fault| CliError::Command(format!("{}: {fault}", path.display())))?;
    match found.is_empty() {
        true => Err(CliError::Command(format!(
            "{}: no age identity",
            path.display()
        ))),
        false => Ok(found),
    }
}

fn text_of(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let fault = |fault: String| CliError::Command(format!("{}: {fault}", path.display()));
    let bytes = files::read(path, MOST_SECRET).map_err(|error| fault(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| fault("invalid UTF-8".into()))?;
    Ok(Zeroizing::new(text))
}
