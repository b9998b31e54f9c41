//! The command line as `clap` parses it, with help that groups the commands.

use std::cmp::Reverse;

use clap::error::{ContextKind, ContextValue};
use clap::{Command, CommandFactory as _, FromArgMatches as _};

use super::args::Args;

/// Commands by what they are for, in the order of `hearth --help`.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Start here", &["status", "invite", "doctor", "help"]),
    (
        "Devices and users",
        &["nodes", "pending", "users", "preauthkeys", "ssh", "auth"],
    ),
    ("Network", &["policy", "dns", "wan"]),
    ("Backup", &["backup", "restore", "repair"]),
    (
        "Server",
        &[
            "serve",
            "check",
            "health",
            "derp",
            "board",
            "audit",
            "apikeys",
            "completion",
            "version",
        ],
    ),
];

/// The help of the program; `{before-help}` is the list of commands, by groups.
const TEMPLATE: &str =
    "{about}\n\n{usage-heading} {usage}\n\n{before-help}Options:\n{options}{after-help}";

/// The command line.
pub fn command() -> Command {
    let command = Args::command();
    let groups = groups(&command);
    command.help_template(TEMPLATE).before_help(groups)
}

/// Parses the arguments of this process. When they are invalid, or ask for help or the version, it prints
/// that and exits.
pub fn parse() -> Args {
    let matches = command().try_get_matches().unwrap_or_else(|mut error| {
        sort_suggestions(&mut error);
        error.exit()
    });
    Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Puts the similar commands first that begin like what was typed, and leaves out aliases of one letter.
fn sort_suggestions(error: &mut clap::Error) {
    let typed = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(typed)) => typed.clone(),
        _ => return,
    };
    let Some(ContextValue::Strings(names)) = error.get(ContextKind::SuggestedSubcommand) else {
        return;
    };
    let common = |name: &String| {
        let pairs = name.chars().zip(typed.chars());
        pairs.take_while(|(one, other)| one == other).count()
    };
    let mut names: Vec<String> = names
        .iter()
        .filter(|name| name.len() > 1)
        .cloned()
        .collect();
    names.sort_by_key(|name| Reverse(common(name)));
    error.insert(
        ContextKind::SuggestedSubcommand,
        ContextValue::Strings(names),
    );
}

fn groups(command: &Command) -> String {
    let mut text = String::new();
    for (title, names) in GROUPS {
        text.push_str(&format!("{title}:\n"));
        for name in names {
            let found = command.find_subcommand(name);
            let about = found.and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            text.push_str(&format!("  {name:<13}{about}\n"));
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_one_group() {
        let mut grouped: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| names.iter().copied())
            .collect();
        grouped.sort_unstable();
        let command = Args::command();
        let shown = command
            .get_subcommands()
            .filter(|command| !command.is_hide_set());
        let mut shown: Vec<&str> = shown.map(Command::get_name).collect();
        shown.sort_unstable();
        assert_eq!(grouped, shown);
    }

    #[test]
    fn the_most_similar_command_is_suggested_first() {
        let parsed = command().try_get_matches_from(["hearth", "nodes", "renam", "x"]);
        let mut error = parsed.unwrap_err();
        sort_suggestions(&mut error);
        let names = match error.get(ContextKind::SuggestedSubcommand) {
            Some(ContextValue::Strings(names)) => names.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(names[0], "rename", "{names:?}");
        assert!(names.iter().all(|name| name.len() > 1), "{names:?}");
    }

    #[test]
    fn the_help_lists_the_groups_before_the_options() {
        let help = command().render_help().to_string();
        let at = |part: &str| help.find(part).unwrap_or_else(|| panic!("{part}: {help}"));
        assert!(at("Usage:") < at("Start here:"));
        assert!(at("\n  nodes        Manage nodes") < at("Network:"));
        assert!(at("\n  version ") < at("Options:"));
    }
}
