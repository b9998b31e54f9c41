//! `hearth completion`, and `hearth __complete`, which the scripts of all shells ask.

use std::time::Duration;

use clap::{Arg, Command};
use serde_json::Value;

use super::help::TOPICS;
use crate::cli::args::Shell;
use crate::cli::context::Ctx;
use crate::cli::output::Output;
use crate::cli::root;
use hearth_core::state::scope::Area;
use hearth_core::visible::is_visible;

/// Time for the server to say which names there are: nobody waits longer for a completion.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The completion script of a shell. It asks `hearth __complete`, so it fits every later version.
pub const fn script(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => include_str!("completion/hearth.bash"),
        Shell::Zsh => include_str!("completion/hearth.zsh"),
        Shell::Fish => include_str!("completion/hearth.fish"),
    }
}

/// Prints a completion script.
pub fn run(shell: Shell) -> Output {
    Output::text(script(shell).trim_end())
}

/// Prints the candidates for the last word, each with a tab and a description. No candidate means that file
/// names fit.
pub fn complete(ctx: &Ctx, words: &[String]) -> Output {
    let found = candidates(words, |kind| names(ctx, kind));
    let lines: Vec<String> = found
        .into_iter()
        .map(|(word, about)| format!("{word}\t{about}"))
        .collect();
    Output::text(&lines.join("\n"))
}

/// Names that only the server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Nodes,
    Users,
    Pending,
}

fn names(ctx: &Ctx, kind: Names) -> Vec<String> {
    let (path, list, field) = match kind {
        Names::Nodes => ("/api/v1/node", "nodes", "givenName"),
        Names::Users => ("/api/v1/user", "users", "name"),
        Names::Pending => ("/api/v1/hearth/pending", "pending", "name"),
    };
    let answer = ctx.client.get_within(path, TIMEOUT).unwrap_or_default();
    let items = answer.get(list).and_then(Value::as_array);
    let names = items.into_iter().flatten();
    let names = names.filter_map(|item| item.get(field)?.as_str());
    // A shell would act on the others.
    names
        .filter(|name| name.chars().all(is_visible))
        .map(str::to_owned)
        .collect()
}

/// Candidates for the last word, which they begin with, and their descriptions.
fn candidates(words: &[String], names: impl FnOnce(Names) -> Vec<String>) -> Vec<(String, String)> {
    let Some((last, before)) = words.split_last() else {
        return Vec::new();
    };
    let root = root::command();
    let place = Place::after(&root, before);
    let mut all: Vec<(String, String)> = Vec::new();
    match place.argument() {
        Some(argument) if place.is_value || !last.starts_with('-') => {
            all.extend(values(argument));
            if let Some(kind) = names_of(argument, place.group) {
                all.extend(names(kind).into_iter().map(|name| (name, String::new())));
            }
        }
        _ => {}
    }
    if !place.is_value {
        match last.starts_with('-') {
            true => all.extend(flags(&root, place.at)),
            false => all.extend(subcommands(place.at)),
        }
    }
    all.retain(|(word, _)| word.starts_with(last.as_str()));
    all
}

/// Where on the command line a word stands.
struct Place<'a> {
    /// The command.
    at: &'a Command,
    /// The first command on the line.
    group: &'a str,
    /// The flag whose value it is.
    flag: Option<&'a Arg>,
    /// Whether it is the value of a flag.
    is_value: bool,
    /// Number of arguments without a flag before it.
    position: usize,
}

impl<'a> Place<'a> {
    fn after(root: &'a Command, words: &[String]) -> Self {
        let mut place = Place {
            at: root,
            group: "",
            flag: None,
            is_value: false,
            position: 0,
        };
        for word in words {
            if place.flag.take().is_some() {
                continue;
            }
            if word.starts_with('-') {
                place.flag = (!word.contains('='))
                    .then(|| flag_named(root, place.at, word))
                    .flatten();
            } else if let Some(below) = place.at.find_subcommand(word) {
                (place.at, place.position) = (below, 0);
                if place.group.is_empty() {
                    place.group = below.get_name();
                }
            } else {
                place.position = place.position.saturating_add(1);
            }
        }
        place.is_value = place.flag.is_some();
        place
    }

    /// The argument that a value here would be of.
    fn argument(&self) -> Option<&'a Arg> {
        let many = |argument: &&Arg| {
            let values = argument.get_num_args();
            values.is_some_and(|values| values.max_values() > 1)
                || matches!(argument.get_action(), clap::ArgAction::Append)
        };
        let positional = || {
            let at = self.at.get_positionals().nth(self.position);
            at.or_else(|| self.at.get_positionals().last().filter(many))
        };
        self.flag.or_else(positional)
    }
}

/// The flag of this name that takes a value.
fn flag_named<'a>(root: &'a Command, at: &'a Command, word: &str) -> Option<&'a Arg> {
    let is_it = |argument: &&Arg| {
        let long = word.strip_prefix("--");
        let short = word.strip_prefix('-').filter(|rest| rest.len() == 1);
        let short = short.and_then(|rest| rest.chars().next());
        (long.is_some() && argument.get_long() == long)
            || (short.is_some() && argument.get_short() == short)
    };
    let mut all = at.get_arguments().chain(root.get_arguments());
    all.find(is_it)
        .filter(|argument| argument.get_action().takes_values())
}

fn flags(root: &Command, at: &Command) -> Vec<(String, String)> {
    let own = at.get_arguments();
    let global = root
        .get_arguments()
        .filter(|argument| argument.is_global_set());
    let all = own.chain(global).filter(|flag| !flag.is_hide_set());
    let mut flags: Vec<(String, String)> = all
        .filter_map(|flag| Some((format!("--{}", flag.get_long()?), about(flag.get_help()))))
        .collect();
    flags.push(("--help".into(), "Print help".into()));
    flags.sort();
    flags.dedup_by(|one, other| one.0 == other.0);
    flags
}

fn subcommands(at: &Command) -> Vec<(String, String)> {
    let shown = at.get_subcommands().filter(|below| !below.is_hide_set());
    shown
        .map(|below| (below.get_name().to_owned(), about(below.get_about())))
        .collect()
}

/// The values that an argument may have, where they are few.
fn values(argument: &Arg) -> Vec<(String, String)> {
    if argument.get_id() == "topic" {
        let topics = TOPICS.iter();
        return topics
            .map(|topic| (topic.name.to_owned(), topic.about.to_owned()))
            .collect();
    }
    if argument.get_id() == "scopes" {
        let areas = Area::ALL.iter().map(|area| area.name());
        let scopes = areas.chain(["all"]);
        return scopes
            .flat_map(|name| [name.to_owned(), format!("{name}:read")])
            .map(|scope| (scope, String::new()))
            .collect();
    }
    if !argument.get_action().takes_values() {
        return Vec::new();
    }
    let values = argument.get_possible_values();
    values
        .iter()
        .map(|value| (value.get_name().to_owned(), about(value.get_help())))
        .collect()
}

fn names_of(argument: &Arg, group: &str) -> Option<Names> {
    match argument.get_id().as_str() {
        "node" | "via" | "first" | "src" => Some(Names::Nodes),
        "identifier" if group == "nodes" => Some(Names::Nodes),
        "user" | "all_of" => Some(Names::Users),
        "device" => Some(Names::Pending),
        _ => None,
    }
}

/// Help in one line, without what would end the description.
fn about(help: Option<&clap::builder::StyledStr>) -> String {
    let text = help.map(ToString::to_string).unwrap_or_default();
    text.lines().next().unwrap_or_default().replace('\t', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let names = |kind| match kind {
            Names::Nodes => vec!["nas".into(), "phone".into()],
            Names::Users => vec!["anna".into()],
            Names::Pending => vec!["tablet".into()],
        };
        let found = candidates(&words, names);
        found.into_iter().map(|(word, _)| word).collect()
    }

    #[test]
    fn commands_and_flags_are_completed() {
        assert_eq!(complete("no"), ["nodes"]);
        assert_eq!(complete("nodes app"), ["approve-routes", "approve"]);
        assert_eq!(complete("node li"), ["list", "list-routes"]);
        assert_eq!(complete("users create --e"), ["--email"]);
        assert_eq!(complete("nodes list --o"), ["--output"]);
        assert_eq!(complete("version --f"), ["--force"]);
        assert_eq!(complete("__"), [""; 0]);
    }

    #[test]
    fn values_are_completed() {
        assert_eq!(complete("nodes list -o y"), ["yaml"]);
        assert_eq!(complete("completion f"), ["fish"]);
        assert_eq!(complete("users set-role anna o"), ["owner"]);
        assert_eq!(complete("help exit"), ["exit-node"]);
        assert_eq!(complete("policy set -f "), [""; 0], "files fit");
    }

    #[test]
    fn names_of_the_server_are_completed() {
        assert_eq!(complete("nodes show n"), ["nas"]);
        assert_eq!(complete("nodes delete -i p"), ["phone"]);
        assert_eq!(complete("nodes move nas --user "), ["anna"]);
        assert_eq!(complete("users delete a"), ["anna"]);
        assert_eq!(complete("users delete -i "), [""; 0]);
        assert_eq!(complete("pending approve "), ["tablet"]);
    }
}
