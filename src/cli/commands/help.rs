//! `hearth help`: examples for common tasks, and the help of commands.

mod topics;

pub use topics::TOPICS;

use serde_json::json;

use crate::cli::client::CliError;
use crate::cli::context::Ctx;
use crate::cli::output::Output;
use crate::cli::root;

/// Shows a topic, the help of a command, or the list of topics.
pub fn run(ctx: &Ctx, words: &[String]) -> Result<Output, CliError> {
    let [first, ..] = words else {
        let mut text = root::command().render_help().to_string();
        text.push_str(&list());
        return Ok(Output::text(&text));
    };
    let topic = TOPICS.iter().find(|topic| topic.name == first);
    if let (Some(topic), [_]) = (topic, words) {
        let json = json!({ "topic": topic.name, "text": topic.text });
        let is_command = root::command().find_subcommand(topic.name).is_some();
        return Ok(ctx.output(&json, || match is_command {
            true => format!("{}\nAll commands: `hearth {first} --help`.", topic.text),
            false => topic.text.trim_end().to_owned(),
        }));
    }
    let mut command = root::command();
    command.build();
    let mut at = &mut command;
    for word in words {
        let Some(below) = at.find_subcommand_mut(word) else {
            let fault = format!(
                "no topic or command `{}`; see `hearth help`",
                words.join(" ")
            );
            return Err(CliError::Command(fault));
        };
        at = below;
    }
    Ok(Output::text(at.render_help().to_string().trim_end()))
}

fn list() -> String {
    let mut text = String::from("\nTopics with examples, shown by `hearth help TOPIC`:\n");
    for topic in TOPICS {
        text.push_str(&format!("  {:<17}{}\n", topic.name, topic.about));
    }
    text.truncate(text.trim_end().len());
    text
}
