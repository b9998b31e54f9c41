//! The text on standard output when the server is ready: listeners, and how to add a device.

use std::fmt::Write as _;
use std::path::Path;

use crate::config::budget::show_mib;
use crate::config::{Config, Surroundings};
use crate::status::addresses::Addresses;
use hearth_core::state::snapshot::Snapshot;

/// The text on standard output.
pub(super) fn banner(config: &Config, addresses: &Addresses, snapshot: &Snapshot) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |words: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{words}");
    };
    line(format_args!("hearth {}", env!("CARGO_PKG_VERSION")));
    if let Some(address) = addresses.http {
        line(format_args!("  http     http://{address}"));
    }
    if let Some(address) = addresses.https {
        line(format_args!("  https    https://{address}"));
    }
    if let Some(address) = addresses.stun {
        line(format_args!("  stun     udp {address}"));
    }
    line(format_args!("  socket   {}", config.socket.display()));
    line(format_args!("  data     {}", config.data_dir.display()));
    line(format_args!("  names    *.{}", config.base_domain));
    line(format_args!("  board    {}", board(config)));
    line(format_args!(
        "  clients  connect to {}",
        addresses.server_url
    ));
    for warning in &config.warnings {
        line(format_args!("  warning  {warning}"));
    }
    line(format_args!(""));
    let socket = socket_flag(&config.socket);
    match snapshot.nodes().len() {
        0 => {
            line(format_args!(
                "To add the first device, run in another terminal"
            ));
            line(format_args!("    {} invite{socket}", program()));
            line(format_args!(
                "and follow its instructions (a command, and a QR code for phones). Or run"
            ));
            line(format_args!(
                "    tailscale login --login-server={}",
                addresses.server_url
            ));
            line(format_args!("on the device, then list and approve it with"));
            line(format_args!("    {} pending list{socket}", program()));
        }
        nodes => line(format_args!(
            "{nodes} node(s). Add another with: {} invite{socket}",
            program()
        )),
    }
    text
}

fn board(config: &Config) -> String {
    let choice = &config.board;
    let (name, words) = (choice.name(), choice.source.words());
    match choice.budget() {
        Some(budget) => format!("{name} ({words}), memory budget {}", show_mib(budget)),
        None => format!("{name}, default limits"),
    }
}

/// The path of this program as called, so that the printed commands can be pasted.
fn program() -> String {
    let called = std::env::args_os()
        .next()
        .unwrap_or_else(|| "hearth".into());
    let path = Path::new(&called);
    let on_path = path.components().count() == 1;
    let absolute = std::env::current_exe().ok().filter(|_| !on_path);
    absolute.as_deref().unwrap_or(path).display().to_string()
}

/// The flag with which the command line finds this server, if needed.
fn socket_flag(socket: &Path) -> String {
    let usual = Surroundings::of_this_process().default_data_dir();
    if socket == usual.join(crate::config::SOCKET_NAME) {
        return String::new();
    }
    format!(" --socket {}", socket.display())
}
