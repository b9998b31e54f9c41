//! `hearth board`, `hearth board list` and `hearth board show`.

use serde_json::{Map, Value, json};

use crate::cli::args::{BoardArgs, BoardCommand};
use crate::cli::client::CliError;
use crate::cli::context::Ctx;
use crate::cli::output::{Output, yes_no};
use crate::config::board::choice::Choice;
use crate::config::board::machine::{Machine, Source};
use crate::config::board::{Board, Class};
use crate::config::budget::{Needs, show_mib};
use crate::config::limits::Row;
use crate::config::{Config, Limits, Surroundings};

/// Shows the board of this machine, or those that are asked for.
pub fn run(ctx: &Ctx, args: BoardArgs) -> Result<Output, CliError> {
    match args.command {
        None => {
            let overrides = args.flags.overrides(ctx.socket.clone());
            let config = Config::load(overrides, &Surroundings::of_this_process());
            Ok(show(ctx, &config.board, &config.limits))
        }
        Some(BoardCommand::List) => Ok(list(ctx)),
        Some(BoardCommand::Show { id }) => {
            // Of no machine in particular, so that nothing but the file counts.
            let (choice, is_known) = Choice::make(Some(&id), &Machine::default());
            if !is_known || choice.source != Source::Configuration {
                let fault = format!("no board `{id}`; see `hearth board list`");
                return Err(CliError::Command(fault));
            }
            Ok(show(ctx, &choice, &choice.limits))
        }
    }
}

fn show(ctx: &Ctx, choice: &Choice, limits: &Limits) -> Output {
    let needs = Needs::of(limits);
    let class = choice.class.as_ref();
    let rows = limits.rows();
    let limits = rows.iter().map(|(name, row)| {
        let value = match row {
            Row::Count(count) => json!(count),
            Row::Amount(amount) => json!(amount),
        };
        ((*name).to_owned(), value)
    });
    let parts = needs.parts.iter();
    let parts = parts.map(|(what, bytes)| ((*what).to_owned(), json!(bytes)));
    let json = json!({
        "name": choice.name(),
        "source": choice.source.words(),
        "board": choice.board.as_ref().map(facts),
        "class": class.map(|class| class.name),
        "budget": choice.budget(),
        "needs": parts.collect::<Map<String, Value>>(),
        "limits": limits.collect::<Map<String, Value>>(),
    });
    ctx.output(&json, || text(choice, &needs, &rows))
}

fn text(choice: &Choice, needs: &Needs, rows: &[(&'static str, Row)]) -> String {
    let mut lines = vec![format!(
        "{:<12} {}, {}",
        "Board",
        choice.name(),
        choice.source.words()
    )];
    if let Some(board) = &choice.board {
        let facts = facts(board);
        let facts = facts.as_object().into_iter().flatten();
        lines.extend(facts.filter_map(|(name, value)| {
            let name = name.replace('_', " ");
            Some(format!("  {name:<18} {}", fact(value)?))
        }));
    }
    let class = choice.class.as_ref().map_or("unknown", |class| class.name);
    lines.push(format!("{:<12} {class}", "Memory"));
    lines.extend(
        needs
            .parts
            .iter()
            .map(|(what, bytes)| format!("  {what:<22} {:>10}", show_mib(*bytes))),
    );
    let budget = choice
        .budget()
        .map(|budget| format!(" of {}", show_mib(budget)));
    let budget = budget.unwrap_or_default();
    let total = show_mib(needs.total());
    lines.push(format!("  {:<22} {total:>10}{budget}", "at most"));
    lines.push("Limits".into());
    lines.extend(rows.iter().map(|(name, row)| format!("  {name:<30} {row}")));
    lines.join("\n")
}

/// A fact for people; `None` when there is nothing to say.
fn fact(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(whether) => Some(yes_no(*whether)),
        Value::Array(items) => {
            let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            (!texts.is_empty()).then(|| texts.join(", "))
        }
        other => Some(other.to_string()),
    }
}

/// The facts of a board's file, by their keys there.
fn facts(board: &Board) -> Value {
    json!({
        "id": board.id,
        "aliases": board.aliases,
        "name": board.name,
        "soc": board.soc,
        "openwrt_target": board.openwrt_target,
        "package_arch": board.package_arch,
        "rust_target": board.rust_target,
        "endian": board.endian,
        "ram_mib": board.ram_mib,
        "storage": board.storage.name(),
        "has_rtc": board.has_rtc,
        "aes": board.aes,
    })
}

fn list(ctx: &Ctx) -> Output {
    let boards: Vec<Board> = Board::all().collect();
    let classes: Vec<Class> = Class::all().collect();
    let json_classes = classes.iter().map(
        |class| json!({ "name": class.name, "ram_mib": class.ram_mib, "budget": class.budget }),
    );
    let json = json!({
        "boards": boards.iter().map(facts).collect::<Vec<_>>(),
        "classes": json_classes.collect::<Vec<_>>(),
    });
    ctx.output(&json, || {
        let rows = boards.iter().map(|board| {
            let ram = board
                .ram_mib
                .map_or("any".to_owned(), |ram| format!("{ram} MB"));
            let storage = board.storage.name().to_owned();
            let package = board.package_arch.clone();
            [board.id.clone(), board.name.clone(), ram, storage, package]
        });
        let boards = ctx.table(
            ["Board", "Name", "RAM", "Storage", "Package"],
            &rows.collect::<Vec<_>>(),
        );
        let rows = classes.iter().map(|class| {
            let nodes = class.limits.nodes.to_string();
            let streams = class.limits.map_streams.to_string();
            let relay = class.limits.derp_connections.to_string();
            [
                class.name.to_owned(),
                show_mib(class.budget),
                nodes,
                streams,
                relay,
            ]
        });
        let classes = ctx.table(
            [
                "Memory class",
                "Memory budget",
                "Nodes",
                "Online",
                "Relay clients",
            ],
            &rows.collect::<Vec<_>>(),
        );
        format!("{boards}\n\n{classes}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_read_as_words() {
        assert_eq!(fact(&json!(["a", "b"])).as_deref(), Some("a, b"));
        assert_eq!(fact(&json!(true)).as_deref(), Some("yes"));
        assert_eq!(fact(&json!([])), None);
        assert_eq!(fact(&Value::Null), None);
    }
}
