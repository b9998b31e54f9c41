//! Web pages for people: self-contained, escaped by construction, with a strict Content-Security-Policy.
//!
//! Anyone can open a page, so pages change nothing: approving a device is left to the command line and the API. The one
//! exception is a form for the key of an invitation (`invitation`), which proves the right to join by itself.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod home;
mod html;
mod invitation;
mod join;
mod platform;
mod register;
mod ssh;

use std::net::IpAddr;
use std::sync::Arc;

use hyper::header::{HeaderName, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use tokio::sync::watch;

use crate::engine::Handle;
use crate::net::body;
use crate::net::body::Body;
use crate::status::addresses::CurrentUrl;
use crate::status::policy::PolicyStatus;
use crate::status::ssh_checks::SshChecks;
use crate::system_clock;
use hearth_core::id::AuthId;
use hearth_core::state::model::PendingState;
use html::Page;

pub use invitation::{FORM_MAX, WrongKeys};

/// `Retry-After` after too many wrong keys, in seconds.
const RETRY_SECONDS: &str = "60";

/// Shared state of the pages.
pub struct WebContext {
    /// Snapshots of the state.
    pub engine: Handle,
    /// `server_url`.
    pub server_url: CurrentUrl,
    /// Source of the policy, and its errors.
    pub policy: watch::Receiver<PolicyStatus>,
    /// SSH connections that wait for approval.
    pub ssh_checks: Arc<SshChecks>,
    /// Wrong keys of invitations.
    pub wrong_keys: WrongKeys,
}

/// `GET /`: the start page.
pub fn home(context: &WebContext) -> Response<Body> {
    let snapshot = context.engine.snapshot();
    let policy = context.policy.borrow();
    answer(home::page(
        &context.server_url.to_string(),
        &snapshot,
        &policy,
    ))
}

/// `GET /join`: how to add a device.
pub fn join(context: &WebContext, request: &Parts) -> Response<Body> {
    let agent = request.headers.get(USER_AGENT);
    let agent = agent.and_then(|agent| agent.to_str().ok());
    answer(join::page(
        &context.server_url.to_string(),
        agent.unwrap_or_default(),
    ))
}

/// `GET /apple`: how to add an Apple device.
pub fn apple(context: &WebContext) -> Response<Body> {
    answer(platform::apple(&context.server_url.to_string()))
}

/// `GET /apple/{variant}`: a profile for an Apple device.
pub fn apple_profile(context: &WebContext, variant: &str) -> Response<Body> {
    match platform::profile(variant, &context.server_url.to_string()) {
        Some(profile) => {
            let kind = "application/x-apple-aspen-config; charset=utf-8";
            body::typed(StatusCode::OK, kind, profile)
        }
        None => {
            let expected = "not found: expected ios, macos-app-store or macos-standalone";
            body::text(StatusCode::NOT_FOUND, expected)
        }
    }
}

/// `GET /windows`: how to add a Windows computer.
pub fn windows(context: &WebContext) -> Response<Body> {
    answer(platform::windows(&context.server_url.to_string()))
}

/// `GET /register/{id}`: a pending registration.
pub fn register(context: &WebContext, id: &str) -> Response<Body> {
    answer(register::page(id, &context.engine.snapshot(), None))
}

/// `POST /register/{id}`: admits the device with the key of an invitation. `source` is charged for wrong keys.
pub async fn redeem(
    context: &WebContext,
    id: &str,
    request: &Parts,
    source: IpAddr,
    form: &[u8],
) -> Response<Body> {
    let snapshot = context.engine.snapshot();
    let login = id.parse::<AuthId>().ok();
    let login = login.and_then(|id| snapshot.pending().get(&id));
    let Some(login) = login.filter(|login| login.state == PendingState::Waiting) else {
        // Says what became of it, and nothing about the key.
        return answer(register::page(id, &snapshot, None));
    };
    if invitation::is_from_elsewhere(&request.headers) {
        let reason = "Another site sent this form. Enter the key here.";
        return answer(register::page(
            id,
            &snapshot,
            Some((StatusCode::FORBIDDEN, reason)),
        ));
    }
    let now = system_clock::now();
    let (status, reason) = match invitation::usable_key(form, &snapshot, now) {
        Ok(key) => match context
            .engine
            .redeem_preauth_key(login.id.clone(), key)
            .await
        {
            Ok(_) => return see(&login.id),
            Err(fault) => invitation::refusal(&fault),
        },
        Err(reason) if context.wrong_keys.count(source, now) => {
            (StatusCode::FORBIDDEN, reason.to_owned())
        }
        Err(_) => {
            let reason = "Too many keys were refused. Wait a minute, then try again.";
            let refusal = (StatusCode::TOO_MANY_REQUESTS, reason);
            let mut response = answer(register::page(id, &snapshot, Some(refusal)));
            let seconds = HeaderValue::from_static(RETRY_SECONDS);
            response.headers_mut().insert(RETRY_AFTER, seconds);
            return response;
        }
    };
    tracing::info!(
        device = &*login.hostinfo.hostname,
        id = login.id.short(),
        %source,
        reason = &*reason,
        help = "hearth invite",
        "invitation refused"
    );
    answer(register::page(id, &snapshot, Some((status, &reason))))
}

/// Leads the browser back to the page, so that a reload sends nothing again.
fn see(id: &AuthId) -> Response<Body> {
    let mut response = body::status(StatusCode::SEE_OTHER);
    if let Ok(page) = HeaderValue::from_str(&format!("/register/{}", id.as_str())) {
        response.headers_mut().insert(LOCATION, page);
    }
    response
}

/// `GET /ssh/{id}`: an SSH connection that waits for approval.
pub fn ssh(context: &WebContext, id: &str) -> Response<Body> {
    let find = |id| context.ssh_checks.find(&id, system_clock::now());
    let check = id.parse().ok().and_then(find);
    answer(ssh::page(check.as_ref(), &context.engine.snapshot()))
}

fn answer(page: Page) -> Response<Body> {
    let policy = page.policy();
    let mut response = body::typed(page.status, "text/html; charset=utf-8", page.text);
    let headers = response.headers_mut();
    let fixed = [
        // The URL of a pending registration is a secret.
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cache-control", "no-store"),
        ("x-robots-tag", "noindex"),
    ];
    for (name, value) in fixed {
        let name = HeaderName::from_static(name);
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert("content-security-policy", policy);
    }
    response
}

#[cfg(test)]
mod tests;
