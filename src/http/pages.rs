//! The pages for people: whole in themselves, escaped by construction, with a strict policy for what
//! a browser may do with them.
//!
//! Nothing here can change anything: approving a device is for the command line and the API, since
//! whoever sees a page may be anyone.
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
mod register;
mod ssh;

use hyper::header::{ALLOW, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use crate::http::App;
use crate::http::body::{self, Body};
use crate::system_clock;
use html::Page;

/// Answers a request for a page.
pub fn handle(app: &App, request: &Parts) -> Response<Body> {
    if request.method != Method::GET && request.method != Method::HEAD {
        let mut response = body::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    let url = &app.addresses.server_url;
    let snapshot = app.engine.snapshot();
    let path = request.uri.path();
    let page = match path {
        "/" => home::page(url, &snapshot, &app.policy_place.borrow()),
        "/join" | "/join/" => join::page(url),
        _ => match (path.strip_prefix("/register/"), path.strip_prefix("/ssh/")) {
            (Some(id), _) => register::page(id, &snapshot),
            (None, Some(id)) => {
                let find = |id| app.contact.ssh_checks.find(&id, system_clock::now());
                ssh::page(id.parse().ok().and_then(find).as_ref(), &snapshot)
            }
            (None, None) => return body::text(StatusCode::NOT_FOUND, "not found"),
        },
    };
    answer(page)
}

fn answer(page: Page) -> Response<Body> {
    let policy = page.policy();
    let mut response = body::typed(page.status, "text/html; charset=utf-8", page.text);
    let headers = response.headers_mut();
    let fixed = [
        // The address of a login is as good as a ticket to it.
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
