//! `hearth version`.

use serde_json::json;

use crate::cli::build::{LEFT_OUT, VERSION, version};
use crate::cli::context::Ctx;
use crate::cli::output::Output;

/// Shows the version of this program.
pub fn run(ctx: &Ctx) -> Output {
    let json = json!({ "version": VERSION, "leftOut": LEFT_OUT });
    ctx.output(&json, || format!("hearth {}", version()))
}
