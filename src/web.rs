//! Web pages for people: self-contained, escaped by construction, with a strict Content-Security-Policy.
//!
//! Pages cannot change anything: approving a device is left to the command line and the API, because
//! anyone can open a page.
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
mod join;
mod platform;
mod register;
mod ssh;

use std::sync::Arc;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::watch;

use crate::engine::Handle;
use crate::net::body;
use crate::net::body::Body;
use crate::status::policy::PolicyStatus;
use crate::status::ssh_checks::SshChecks;
use crate::system_clock;
use html::Page;

/// Shared state of the pages.
pub struct WebContext {
    /// Snapshots of the state.
    pub engine: Handle,
    /// `server_url`, without a trailing slash.
    pub server_url: String,
    /// Source of the policy, and its errors.
    pub policy: watch::Receiver<PolicyStatus>,
    /// SSH connections that wait for approval.
    pub ssh_checks: Arc<SshChecks>,
}

/// `GET /`: the start page.
pub fn home(context: &WebContext) -> Response<Body> {
    let snapshot = context.engine.snapshot();
    let policy = context.policy.borrow();
    answer(home::page(&context.server_url, &snapshot, &policy))
}

/// `GET /join`: how to add a device.
pub fn join(context: &WebContext) -> Response<Body> {
    answer(join::page(&context.server_url))
}

/// `GET /apple`: how to add an Apple device.
pub fn apple(context: &WebContext) -> Response<Body> {
    answer(platform::apple(&context.server_url))
}

/// `GET /apple/{variant}`: a profile for an Apple device.
pub fn apple_profile(context: &WebContext, variant: &str) -> Response<Body> {
    match platform::profile(variant, &context.server_url) {
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
    answer(platform::windows(&context.server_url))
}

/// `GET /register/{id}`: a pending registration.
pub fn register(context: &WebContext, id: &str) -> Response<Body> {
    answer(register::page(id, &context.engine.snapshot()))
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
