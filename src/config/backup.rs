//! The `[backup]` section: automatic copies of the database, and the command that gets a whole backup.

use std::path::PathBuf;
use std::time::Duration;

use super::board::Storage;
use super::board::choice::Choice;
use super::fault::ConfigFault;
use super::file::RawConfig;
use super::raw::RawValue;
use super::value::{Expiry, List, Range, Setting};
use super::wan::{MaybeProgram, Program};
use hearth_core::age::Recipient;

/// Most recipients: a header of age has room for more.
const MOST_RECIPIENTS: usize = 16;
/// Most copies that are kept.
const MOST_COPIES: usize = 1000;
/// Copies that are kept where space is no concern.
const COPIES: usize = 7;
/// Bytes of copies a day on flash of the board itself: a quarter of what hearth may write to it
/// (`benches/flash`).
const DAILY_ON_FLASH: u64 = 256 << 10;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Automatic backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupSettings {
    /// Directory of the copies; `None` is `backups` in the data directory.
    pub directory: Option<PathBuf>,
    /// Time between two copies; `None` makes none.
    pub every: Option<Duration>,
    /// Number of copies that are kept.
    pub keep: usize,
    /// Most bytes of copies a day; `None` is unlimited.
    pub daily_bytes: Option<u64>,
    /// Program that gets a whole backup on its standard input, as often as a copy is made.
    pub command: Option<Program>,
    /// For whom the backup for that program is encrypted; nobody leaves it unencrypted.
    pub recipients: Vec<Recipient>,
}

impl Setting for List<Recipient> {
    const EXPECTED: &'static str = "a list of age recipients such as `age1…`";

    /// A list without one of its items is another one: what is encrypted for fewer people may be lost.
    fn read(value: &RawValue) -> Option<Self> {
        let RawValue::List(items) = value else {
            return None;
        };
        let items = items.iter().map(|item| item.value.text()?.parse().ok());
        let recipients: Vec<Recipient> = items.collect::<Option<_>>()?;
        (recipients.len() <= MOST_RECIPIENTS).then_some(Self(recipients))
    }
}

impl BackupSettings {
    /// Takes the section from a configuration file. `is_root` says that the program would run as root: then there is
    /// none.
    pub(super) fn take(raw: &mut RawConfig, board: &Choice, is_root: bool) -> Self {
        let directory: Option<PathBuf> = raw.take("backup.directory");
        let storage = board.board.as_ref().map(|board| board.storage);
        // A drive of the owner's choice is neither small nor worn out by a copy a day.
        let storage = storage.filter(|_| directory.is_none());
        let copies = Range {
            least: 1,
            most: MOST_COPIES,
        };
        let keep = raw.take_in_range("backup.keep", copies);
        let every = raw.take("backup.every").unwrap_or(Expiry(Some(DAY)));
        let recipients = raw.take("backup.recipients").unwrap_or(List(Vec::new()));
        let command = raw.take("backup.command");
        let command = command.and_then(|MaybeProgram(program)| program);
        // What should be encrypted must not leave this machine as it is.
        let mut command = command.filter(|_| !raw.is_damaged("backup.recipients"));
        if is_root && command.take().is_some() {
            let location = raw.location_of("backup.command");
            raw.warn(
                location,
                ConfigFault::ProgramAsRoot {
                    key: "backup.command",
                },
            );
        }
        Self {
            directory,
            every: every.0,
            keep: keep.unwrap_or_else(|| storage.map_or(COPIES, kept_on)),
            daily_bytes: storage
                .filter(|kind| *kind != Storage::Ssd)
                .map(|_| DAILY_ON_FLASH),
            command,
            recipients: recipients.0,
        }
    }
}

/// Copies that are kept on a board with this storage.
fn kept_on(storage: Storage) -> usize {
    match storage {
        Storage::Nor => 1,
        Storage::Nand | Storage::Emmc | Storage::Sd => 2,
        Storage::Ssd => COPIES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::board::machine::Machine;
    use crate::config::keys;

    fn on(board: &str, text: &str) -> (BackupSettings, Vec<String>) {
        let mut raw = RawConfig::parse("hearth.toml".into(), &format!("[backup]\n{text}"));
        raw.close_possibly_meant(keys::is_known);
        let (choice, _) = Choice::make(Some(board), &Machine::default());
        let settings = BackupSettings::take(&mut raw, &choice, false);
        let faults = raw.finish();
        (settings, faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn flash_keeps_few_copies_and_another_drive_keeps_seven() {
        let (router, _) = on("netgear,r6220", "");
        assert_eq!((router.keep, router.daily_bytes), (2, Some(256 << 10)));
        assert_eq!(router.every, Some(DAY));
        let (stick, _) = on("netgear,r6220", "directory = \"/mnt/usb\"\n");
        assert_eq!((stick.keep, stick.daily_bytes), (7, None));
        let (unknown, _) = on("memory-128", "every = \"never\"\nkeep = 3\n");
        assert_eq!((unknown.keep, unknown.every), (3, None));
    }

    #[test]
    fn a_slip_in_the_recipients_lets_no_backup_out() {
        let key = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";
        let command = "command = [\"/bin/x\"]\n";
        let (right, faults) = on("auto", &format!("{command}recipients = [\"{key}\"]\n"));
        assert_eq!(faults, [""; 0]);
        assert_eq!((right.recipients.len(), right.command.is_some()), (1, true));
        for slip in [
            format!("recipients = [\"{key}x\"]\n"),
            format!("recipients = [\"{key}\", \"age1\"]\n"),
            format!("recipients = \"{key}\"\n"),
            format!("recipient = [\"{key}\"]\n"),
            format!("receipients = [\"{key}\"]\n"),
        ] {
            let (settings, faults) = on("auto", &format!("{command}{slip}"));
            assert_eq!(settings.command, None, "{slip}");
            let faults = faults.join("\n");
            assert!(faults.contains("`backup.command` is not run"), "{faults}");
        }
    }
}
