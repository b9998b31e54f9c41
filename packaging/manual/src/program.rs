//! The page of the program, with all its commands on it.

use std::io::{self, Write as _};

use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// Sections that the command line's definition does not have.
const SECTIONS: &[(&str, &[(&str, &str)])] = &[
    (
        "FILES",
        &[
            (
                "/etc/hearth/hearth.toml",
                "Configuration, optional; see hearth.toml(5).",
            ),
            (
                "/var/lib/hearth",
                "Database, keys and certificate of a server that runs as root or as a service. Anyone who can read it can \
                 impersonate this server.",
            ),
            (
                "/var/run/hearth/hearth.sock",
                "Socket of the service, which the commands connect to. Anyone who can open it has full control.",
            ),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            (
                "HEARTH_SOCKET",
                "Socket of the server; --socket overrides it.",
            ),
            (
                "NO_COLOR",
                "Print without colours. Output that does not go to a terminal never has any.",
            ),
            (
                "HEARTH_DATA_DIR",
                "Data directory when neither --data-dir nor the configuration names one.",
            ),
            (
                "NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS",
                "Set by the service manager: see sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3). Sockets named \
                 http, https and stun replace the listeners of the configuration.",
            ),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "Success."),
            ("1", "The command was refused or failed."),
            ("2", "The command line is invalid."),
            (
                "3",
                "hearth wan refresh --changed: the addresses have not changed.",
            ),
        ],
    ),
    (
        "SIGNALS",
        &[
            (
                "SIGTERM, SIGINT",
                "Stop gracefully; a second one stops at once.",
            ),
            (
                "SIGHUP",
                "Reload the certificate, the policy, DNS settings, the log level and the relay's rate limits. Other \
                 changes of the configuration need a restart.",
            ),
        ],
    ),
];

/// The page in roff.
pub(crate) fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut command = command.clone().disable_help_subcommand(true);
    command.build();
    let mut page = title("HEARTH", "8")?;
    let man = Man::new(command.clone());
    man.render_name_section(&mut page)?;
    let mut synopsis = Roff::new();
    synopsis.control("SH", ["SYNOPSIS"]);
    synopsis.text([
        bold("hearth"),
        roman(" ["),
        italic("OPTIONS"),
        roman("] "),
        italic("COMMAND"),
        roman(" ["),
        italic("ARGUMENTS"),
        roman("]"),
    ]);
    synopsis.to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let mut rest = Roff::new();
    rest.control("SH", ["COMMANDS"]);
    commands(&mut rest, &command, "hearth");
    for (title, entries) in SECTIONS {
        rest.control("SH", [*title]);
        for (name, text) in *entries {
            rest.control("TP", []);
            rest.text([bold(*name)]);
            rest.text([roman(*text)]);
        }
    }
    rest.control("SH", ["SEE ALSO"]);
    rest.text([
        bold("hearth.toml"),
        roman("(5), "),
        bold("systemctl"),
        roman("(1)"),
    ]);
    rest.to_writer(&mut page)?;
    Ok(page)
}

/// The first line. It has no date, so that the same sources give the same page.
pub(crate) fn title(name: &str, section: &str) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let version = env!("CARGO_PKG_VERSION");
    writeln!(
        page,
        ".TH {name} {section} \"\" \"hearth {version}\" hearth"
    )?;
    Ok(page)
}

/// All commands below one, those that only group others by their members.
fn commands(page: &mut Roff, above: &Command, path: &str) {
    for command in above.get_subcommands().filter(|below| !below.is_hide_set()) {
        let path = format!("{path} {}", command.get_name());
        let has_own_flags = command.get_arguments().any(is_shown);
        if !command.has_subcommands() || has_own_flags {
            one(page, command, &path);
        }
        commands(page, command, &path);
    }
}

fn one(page: &mut Roff, command: &Command, path: &str) {
    let mut heading = vec![bold(path)];
    for argument in command
        .get_positionals()
        .filter(|argument| is_shown(argument))
    {
        heading.push(roman(" "));
        heading.extend(value(argument));
    }
    page.control("TP", []);
    page.text(heading);
    let about = command.get_about().map(ToString::to_string);
    let aliases: Vec<&str> = command.get_visible_aliases().collect();
    let also = match aliases.is_empty() {
        true => String::new(),
        false => format!(" (also {})", aliases.join(", ")),
    };
    page.text([roman(format!("{}{also}", about.unwrap_or_default()))]);
    let mut arguments = command
        .get_arguments()
        .filter(|argument| is_shown(argument))
        .peekable();
    if arguments.peek().is_none() {
        return;
    }
    page.control("RS", []);
    for argument in arguments {
        page.control("TP", []);
        page.text(term(argument));
        page.text([roman(explanation(argument))]);
    }
    page.control("RE", []);
}

/// Flags that all commands have are listed once, at the top.
fn is_shown(argument: &Arg) -> bool {
    let is_everywhere =
        argument.is_global_set() || ["help", "version"].contains(&argument.get_id().as_str());
    !argument.is_hide_set() && !is_everywhere
}

fn term(argument: &Arg) -> Vec<Inline> {
    let mut term = Vec::new();
    if let Some(short) = argument.get_short() {
        term.push(bold(format!("-{short}")));
        term.push(roman(if argument.get_long().is_some() {
            ", "
        } else {
            ""
        }));
    }
    if let Some(long) = argument.get_long() {
        term.push(bold(format!("--{long}")));
    }
    if argument.get_action().takes_values() {
        if !term.is_empty() {
            term.push(roman(" "));
        }
        term.extend(value(argument));
    }
    term
}

fn value(argument: &Arg) -> Vec<Inline> {
    let names = argument.get_value_names().unwrap_or_default();
    let id = argument.get_id().as_str().to_uppercase();
    let name = names.first().map_or(id, ToString::to_string);
    match argument.is_required_set() || !argument.is_positional() {
        true => vec![italic(name)],
        false => vec![roman("["), italic(name), roman("]")],
    }
}

fn explanation(argument: &Arg) -> String {
    let mut text = argument
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let choices: Vec<String> = argument
        .get_possible_values()
        .iter()
        .map(|choice| choice.get_name().to_owned())
        .collect();
    if !choices.is_empty() && argument.get_action().takes_values() {
        text.push_str(&format!(" ({})", choices.join(", ")));
    }
    let defaults = argument.get_default_values();
    if let Some(default) = defaults.first().filter(|default| !default.is_empty()) {
        text.push_str(&format!(" [default: {}]", default.to_string_lossy()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn every_command_and_flag_is_on_the_page() {
        let command = hearth::cli::Args::command();
        let page = String::from_utf8(page(&command).unwrap())
            .unwrap()
            .replace('\\', "");
        let mut above = vec![(command, "hearth".to_owned())];
        let mut count = 0;
        while let Some((command, path)) = above.pop() {
            for below in command
                .get_subcommands()
                .filter(|below| !below.is_hide_set())
            {
                let path = format!("{path} {}", below.get_name());
                if !below.has_subcommands() {
                    assert!(page.contains(&format!("fB{path}fR")), "{path}");
                    count += 1;
                }
                for long in below.get_arguments().filter_map(Arg::get_long) {
                    assert!(page.contains(&format!("--{long}")), "{path} --{long}");
                }
                above.push((below.clone(), path));
            }
        }
        assert!(count > 40, "{count} commands");
    }
}
