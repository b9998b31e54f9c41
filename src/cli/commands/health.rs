//! `hearth health`.

use std::time::Duration;

use crate::api::HealthAnswer;
use crate::cli::client::{CliError, read};
use crate::cli::context::Ctx;
use crate::cli::output::Output;

/// Timeout of the request. Container engines ask every few seconds and give up on an answer after 30 s by
/// default.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Checks the server's health; fails when it is unhealthy or does not answer in time.
/// With `alive` a server with a read-only database is healthy.
pub fn run(ctx: &Ctx, alive: bool) -> Result<Output, CliError> {
    let path = match alive {
        true => "/api/v1/health?alive=true",
        false => "/api/v1/health",
    };
    let answer = ctx.client.get_within(path, TIMEOUT)?;
    let health: HealthAnswer = read(&answer)?;
    if !health.database_connectivity && !alive {
        return Err(CliError::Refused(
            "the database is read-only; see the log of hearth".into(),
        ));
    }
    Ok(ctx.output(&answer, || "ok".into()))
}
