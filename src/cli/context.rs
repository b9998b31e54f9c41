//! What every command needs: the server to ask, the output format and the terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use serde_json::Value;

use super::client::{CliError, Client, read};
use super::output::{Format, Output, Terminal, table};
use crate::api::{Node, NodeAnswer};

/// The context of a command.
#[derive(Debug)]
pub struct Ctx {
    /// The server.
    pub client: Client,
    /// How results are printed.
    pub format: Format,
    /// Colours and width of standard output.
    pub terminal: Terminal,
    /// Socket given by `--socket`.
    pub socket: Option<PathBuf>,
    /// Whether destructive commands run without a question.
    force: bool,
}

impl Ctx {
    /// The context of the flags that all commands have.
    pub fn new(socket: Option<PathBuf>, format: Format, force: bool) -> Self {
        Self {
            client: Client::new(socket.clone()),
            format,
            terminal: Terminal::of(&io::stdout()),
            socket,
            force,
        }
    }

    /// Whether `--force` was given.
    pub fn is_forced(&self) -> bool {
        self.force
    }

    /// A result: `json` for programs, `text` for people.
    pub fn output(&self, json: &Value, text: impl FnOnce() -> String) -> Output {
        Output::of(self.format, json, text)
    }

    /// A result whose JSON is one field of the server's answer.
    pub fn field(&self, answer: &Value, field: &str, text: impl FnOnce() -> String) -> Output {
        self.output(&inner(answer, field), text)
    }

    /// A result with one node: the node as JSON, or `text` about it.
    ///
    /// # Errors
    /// When the answer has no node.
    pub fn node(
        &self,
        answer: &Value,
        text: impl FnOnce(&Node) -> String,
    ) -> Result<Output, CliError> {
        let NodeAnswer { node, .. } = read(answer)?;
        Ok(self.field(answer, "node", || text(&node)))
    }

    /// A table that fits the terminal.
    pub fn table<const N: usize>(&self, head: [&str; N], rows: &[[String; N]]) -> String {
        table(head, rows, self.terminal)
    }

    /// Asks a person for permission: `action` says what will be done, as in `delete node 3 (nas)`. Without
    /// a terminal, or with `--force`, it is given, and `action` is not called.
    ///
    /// # Errors
    /// When `action` fails or the person does not agree.
    pub fn confirm(
        &self,
        action: impl FnOnce() -> Result<String, CliError>,
    ) -> Result<(), CliError> {
        if self.force || !is_attended() {
            return Ok(());
        }
        match ask(&action()?) {
            true => Ok(()),
            false => Err(CliError::Declined),
        }
    }

    /// Asks a person for what nobody else may decide; `None` without a terminal, or with `--force`, which asks nothing.
    pub fn asked(&self, action: &str) -> Option<bool> {
        (!self.force && is_attended()).then(|| ask(action))
    }
}

fn is_attended() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn ask(action: &str) -> bool {
    let _ = write!(io::stderr().lock(), "This will {action}. Continue? [y/N] ");
    let mut reply = String::new();
    let _ = io::stdin().read_line(&mut reply);
    matches!(reply.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// One field of an answer; `null` when it is missing.
pub fn inner(answer: &Value, field: &str) -> Value {
    answer.get(field).cloned().unwrap_or(Value::Null)
}
