//! `hearth backup`.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use serde_json::json;
use zeroize::Zeroizing;

use super::restore::{first_line, identities};
use crate::backup::sheet::{self, Key};
use crate::backup::whole::Source;
use crate::backup::{MOST_UNPACKED, space};
use crate::cli::args::BackupArgs;
use crate::cli::client::CliError;
use crate::cli::context::Ctx;
use crate::cli::output::{Output, ask_secret};
use crate::config::{Config, Surroundings};
use crate::files;
use crate::system_clock;
use hearth_core::age::{Encryptor, Identity, Lock, Recipient, work_factor};
use hearth_core::backup::{Manifest, Name, Sink};

const PATH: &str = "/api/v1/hearth/backup";
/// Part of the memory that the work of a passphrase may use: one in so many.
const MEMORY_PART: u64 = 8;

/// Makes a backup, a recovery sheet, or both.
pub fn run(ctx: &Ctx, args: BackupArgs) -> Result<Output, CliError> {
    let wants_sheet = args.sheet || args.sheet_file.is_some();
    let to_stdout = args.file.as_deref() == Some(Path::new("-"));
    if to_stdout && (args.sheet || io::stdout().is_terminal()) {
        let fault = "a backup is no text for a terminal, nor does a sheet go into it; name a file";
        return Err(CliError::Command(fault.into()));
    }
    let surroundings = Surroundings::of_this_process();
    let memory = surroundings.machine.memory.unwrap_or(u64::MAX);
    let archive = match args.offline {
        true => offline(ctx, args.flags, &surroundings)?,
        false => ctx.client.download(PATH)?,
    };
    let manifest = verified(&archive)?;
    let given = match &args.identity {
        Some(path) => identities(path)?.into_iter().next(),
        None => None,
    };
    let key = wants_sheet
        .then(|| key(&manifest, given, &args.recipient))
        .transpose()?;
    let passphrase = match (&args.passphrase_file, args.passphrase) {
        (Some(path), _) => Some(first_line(path)?),
        (None, true) => Some(new_passphrase()?),
        (None, false) => None,
    };
    let mut recipients = args.recipient;
    if let (Some(Key::Identity { recipient, .. }), true, None) =
        (&key, recipients.is_empty(), &passphrase)
    {
        recipients.extend(recipient.parse::<Recipient>());
    }
    let lock = match (&passphrase, recipients.as_slice()) {
        (Some(passphrase), _) => Some(Lock::Passphrase {
            passphrase,
            work_factor: work_factor(memory / MEMORY_PART),
        }),
        (None, []) => None,
        (None, recipients) => Some(Lock::Recipients(recipients)),
    };
    let file = match (args.file, wants_sheet) {
        (None, true) => None,
        (Some(file), _) => Some(file),
        (None, false) => Some(default_name(lock.is_some())),
    };
    let bytes = file
        .as_deref()
        .map(|file| write(file, &archive, lock.as_ref()))
        .transpose()?;
    if let (Some(path), Some(key)) = (&args.sheet_file, &key) {
        let page = sheet::html(&manifest, key);
        files::export(path, page.as_bytes()).map_err(|fault| at(path, &fault))?;
    }
    let json = json!({
        "file": file,
        "bytes": bytes,
        "encrypted": lock.is_some(),
        "sheet": args.sheet_file,
        "manifest": manifest,
    });
    if to_stdout {
        return Ok(Output::default());
    }
    let mut lines = Vec::new();
    if let (Some(file), Some(bytes)) = (&file, bytes) {
        let (size, contents) = (space::show(bytes), contents(&manifest));
        lines.push(format!("{}: {size}, {contents}", file.display()));
    }
    if let Some(path) = &args.sheet_file {
        lines.push(format!("{}: recovery sheet", path.display()));
    }
    if let (true, Some(key)) = (args.sheet, &key) {
        lines.push(sheet::text(&manifest, key));
    }
    let output = ctx.output(&json, || lines.join("\n"));
    let notes = notes(&manifest, file.is_some() && lock.is_none(), key.as_ref());
    Ok(output.note(&notes.join("\n")))
}

fn contents(manifest: &Manifest) -> String {
    let (nodes, users) = (manifest.nodes, manifest.users);
    format!("{nodes} nodes, {users} users")
}

fn notes(manifest: &Manifest, is_open: bool, key: Option<&Key>) -> Vec<String> {
    let missing = manifest.missing.iter();
    let mut notes: Vec<String> = missing
        .map(|file| format!("not in the backup: {file}"))
        .collect();
    if is_open {
        notes.push("It is not encrypted and contains all private keys: keep it safe, or add --passphrase or --recipient.".into());
    }
    if let Some(Key::Identity { recipient, .. }) = key
        && !manifest.recipients.contains(recipient)
    {
        notes.push(format!(
            "The identity is new and on this sheet only: it opens backups that are encrypted for it, those of other sheets it does not. For one key in all sheets, manual and automatic backups: backup.recipients = [\"{recipient}\"]"
        ));
    }
    notes
}

fn at(path: &Path, fault: &io::Error) -> CliError {
    CliError::Command(format!("{}: {fault}", path.display()))
}

fn default_name(is_encrypted: bool) -> PathBuf {
    let stamp = system_clock::now().wall.stamp();
    let end = if is_encrypted { ".age" } else { "" };
    format!("hearth-backup-{stamp}.tar.zst{end}").into()
}

fn offline(
    ctx: &Ctx,
    flags: crate::cli::args::ServeFlags,
    surroundings: &Surroundings,
) -> Result<Vec<u8>, CliError> {
    let config = Config::load(flags.overrides(ctx.socket.clone()), surroundings);
    let source = Source::of(&config, config.server_url.to_string());
    let packed = source.pack_offline(system_clock::now().wall);
    packed.map_err(|fault| CliError::Command(fault.to_string()))
}

/// Nothing is kept of a backup that is only looked at.
struct Nowhere;

impl Sink for Nowhere {
    fn begin(&mut self, _: &Name, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn content(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the backup once before it is written.
fn verified(mut archive: &[u8]) -> Result<Manifest, CliError> {
    hearth_core::backup::read(&mut archive, MOST_UNPACKED, &mut Nowhere)
        .map_err(|fault| CliError::Command(format!("the backup cannot be verified: {fault}")))
}

/// The key on the sheet: the one that is given, that of the configured recipients, or a new one.
fn key(
    manifest: &Manifest,
    given: Option<Identity>,
    recipients: &[Recipient],
) -> Result<Key, CliError> {
    if given.is_none() {
        let named: Vec<String> = recipients.iter().map(ToString::to_string).collect();
        let known = if named.is_empty() {
            manifest.recipients.clone()
        } else {
            named
        };
        if !known.is_empty() {
            return Ok(Key::Recipients(known));
        }
    }
    let identity = match given {
        Some(identity) => identity,
        None => Identity::random().map_err(|fault| CliError::Command(fault.to_string()))?,
    };
    Ok(Key::Identity {
        recipient: identity.recipient().to_string(),
        secret: identity.reveal().to_string(),
    })
}

fn new_passphrase() -> Result<Zeroizing<String>, CliError> {
    let ask = |prompt: &str| {
        let asked = ask_secret(prompt).map_err(|fault| CliError::Command(fault.to_string()))?;
        asked.ok_or_else(|| {
            CliError::Command("no terminal to ask for a passphrase; use --passphrase-file".into())
        })
    };
    let first = ask("Passphrase: ")?;
    if first.is_empty() {
        return Err(CliError::Command("the passphrase is empty".into()));
    }
    match *ask("The same again: ")? == *first {
        true => Ok(first),
        false => Err(CliError::Command("the passphrases differ".into())),
    }
}

/// Writes a backup to a file, whole or not at all, or to standard output; gives its size.
fn write(file: &Path, archive: &[u8], lock: Option<&Lock<'_>>) -> Result<u64, CliError> {
    let fault = |fault: String| CliError::Command(format!("cannot encrypt the backup: {fault}"));
    let bytes = match lock {
        None => archive.to_vec(),
        Some(lock) => {
            let mut bytes = Vec::with_capacity(archive.len());
            let encryptor = Encryptor::new(&mut bytes, lock);
            let mut encryptor = encryptor.map_err(|error| fault(error.to_string()))?;
            let written = encryptor
                .write_all(archive)
                .and_then(|()| encryptor.finish());
            written.map_err(|error| fault(error.to_string()))?;
            bytes
        }
    };
    let written = match file == Path::new("-") {
        true => io::stdout()
            .write_all(&bytes)
            .and_then(|()| io::stdout().flush()),
        false if is_special(file) => fs::OpenOptions::new()
            .write(true)
            .open(file)
            .and_then(|mut open| open.write_all(&bytes)),
        false => files::export(&absolute(file), &bytes),
    };
    written.map_err(|fault| at(file, &fault))?;
    Ok(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
}

/// Whether this is a pipe or a device, which cannot be replaced.
fn is_special(file: &Path) -> bool {
    file.metadata().is_ok_and(|about| !about.is_file())
}

/// A file in this directory has a parent only when it is named.
fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}
