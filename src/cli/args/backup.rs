//! Arguments of `hearth backup`, `hearth restore` and `hearth repair`.

use std::path::PathBuf;

use clap::Args;

use super::ServeFlags;
use hearth_core::age::Recipient;

/// `hearth backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// File to write, or `-` for standard output [default: hearth-backup-TIME.tar.zst in this directory].
    pub file: Option<PathBuf>,
    /// Make the backup from the data directory, while hearth is stopped, instead of asking the running server.
    #[arg(long)]
    pub offline: bool,
    /// Encrypt it with a passphrase, which is asked for twice, as `age -p` does.
    #[arg(short, long, visible_alias = "encrypt")]
    pub passphrase: bool,
    /// Encrypt it with the passphrase in the first line of a file.
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase")]
    pub passphrase_file: Option<PathBuf>,
    /// Encrypt it for an age recipient; may be repeated.
    #[arg(short, long, value_name = "RECIPIENT", conflicts_with_all = ["passphrase", "passphrase_file"])]
    pub recipient: Vec<Recipient>,
    /// Print a recovery sheet: the key of the backups, and how to restore one. Makes no backup unless FILE is given.
    #[arg(long)]
    pub sheet: bool,
    /// Write the recovery sheet to a file to print, in HTML.
    #[arg(long, value_name = "FILE")]
    pub sheet_file: Option<PathBuf>,
    /// File with the age identity for the sheet; without one a new identity is made.
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Flags of the server.
    #[command(flatten)]
    pub flags: ServeFlags,
}

/// `hearth restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Backup (`.tar.zst`, encrypted or not), or copy of the database (`.redb`); `-` is standard input.
    pub file: PathBuf,
    /// File with the age identity of a recipient.
    #[arg(short, long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// File with the passphrase in its first line; without one it is asked for.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Write the settings of the backup to this directory, such as /etc/hearth, and keep what they replace
    /// [default: restored-settings in the data directory].
    #[arg(long, value_name = "DIR")]
    pub settings_dir: Option<PathBuf>,
    /// Flags of the server.
    #[command(flatten)]
    pub flags: ServeFlags,
}

/// `hearth repair`.
#[derive(Debug, Args)]
pub struct RepairArgs {
    /// The data directory [default: that of the configuration].
    pub dir: Option<PathBuf>,
    /// Keep what can be read of a damaged database, instead of bringing back a copy.
    #[arg(long)]
    pub salvage: bool,
    /// Flags of the server.
    #[command(flatten)]
    pub flags: ServeFlags,
}

/// `hearth check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Check the database, the certificate and all copies instead, while hearth is stopped, and say what `hearth repair`
    /// would do. Exits 1 if repair helps, 3 if it cannot.
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    pub data: Option<Option<PathBuf>>,
    /// Flags of the server.
    #[command(flatten)]
    pub flags: ServeFlags,
}
