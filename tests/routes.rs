//! The route table for readers: docs/api.md and the OpenAPI document have all of it, docs/rest.md nothing else.
//!
//! `HEARTH_UPDATE_DOCS=1 cargo test --test routes` writes docs/api.md.

#![allow(
    clippy::disallowed_methods,
    reason = "the page is written at the request of a developer, who has a copy in git"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use hearth::config::Limits;
use hearth::routes::document;
use hearth::routes::route::{Access, Found, Route, find};
use hearth::routes::table::ROUTES;
use hyper::Method;
use serde_json::Value;

/// What stands above the table in docs/api.md.
const HEAD: &str = "\
# Routes

Every HTTP route that hearth serves. This page is generated from the route table (`src/routes/table.rs`); update it with
`HEARTH_UPDATE_DOCS=1 cargo test --test routes`. `GET /openapi.json` has the same for the API as an OpenAPI document. How
to use the API is in [REST API](rest.md).

Access:

- **public**: no authentication.
- **Noise session**: Tailscale clients, identified by their machine key.
- **any API key**, or a scope such as `devices:core:read`: an API key that has the scope, or the admin socket.
- **admin socket only**: no API key, whatever its scopes.
- **`metrics.listen`**: only on that listener, without authentication.

Names in backticks in the body column are keys of the configuration.

";

#[test]
fn the_page_of_routes_is_up_to_date() {
    let wanted = format!("{HEAD}{}", document::markdown(ROUTES));
    if std::env::var_os("HEARTH_UPDATE_DOCS").is_some_and(|value| value == "1") {
        fs::write(path("docs/api.md"), &wanted).unwrap();
    }
    let written = fs::read_to_string(path("docs/api.md")).unwrap_or_default();
    let differs = written
        .lines()
        .zip(wanted.lines())
        .find(|(old, new)| old != new);
    assert!(
        written == wanted,
        "docs/api.md is out of date, run HEARTH_UPDATE_DOCS=1 cargo test --test routes; first difference: {differs:?}"
    );
}

#[test]
fn no_two_routes_answer_the_same_request() {
    let mut seen = BTreeSet::new();
    for route in ROUTES {
        for verb in verbs(route) {
            // What a name in a path is called makes no difference.
            let path: Vec<&str> = route
                .path
                .split('/')
                .map(|part| if part.starts_with('{') { "{}" } else { part })
                .collect();
            assert!(
                seen.insert((verb, path.join("/"))),
                "twice: {verb} {}",
                route.path
            );
        }
    }
    assert!(seen.len() > 60, "{}", seen.len());
}

#[test]
fn other_methods_are_refused_and_monitoring_may_ask_for_the_head() {
    let allowed = |method: Method, path: &str| match find(ROUTES, &method, path, |_| true) {
        Found::Route(..) => "served".to_owned(),
        Found::OtherMethod(allowed) => allowed,
        Found::Unreadable | Found::Nothing => "not found".to_owned(),
    };
    for path in ["/", "/health", "/version", "/key", "/derp/probe", "/join/"] {
        assert_eq!(allowed(Method::GET, path), "served", "{path}");
        assert_eq!(allowed(Method::HEAD, path), "served", "{path}");
        assert_eq!(allowed(Method::POST, path), "GET, HEAD", "{path}");
    }
    for method in [Method::GET, Method::POST] {
        assert_eq!(allowed(method.clone(), "/ts2021"), "served");
        assert_eq!(allowed(method, "/derp"), "served");
    }
    assert_eq!(allowed(Method::GET, "/verify"), "POST");
    assert_eq!(allowed(Method::GET, "/machine/ping-response"), "HEAD");
    assert_eq!(allowed(Method::GET, "/machine/map"), "POST");
    assert_eq!(allowed(Method::PUT, "/api/v1/user"), "POST, GET");
    // With the ID in the query, as Headscale's clients send it.
    assert_eq!(allowed(Method::DELETE, "/api/v1/apikey/"), "served");
    assert_eq!(allowed(Method::GET, "/health/"), "not found");
}

#[test]
fn the_body_of_a_verify_request_is_short() {
    let verify = ROUTES.iter().find(|route| route.path == "/verify").unwrap();
    assert_eq!(verify.body.bytes(&Limits::default()), 4096);
}

#[test]
fn every_route_of_the_api_needs_a_key_and_no_other_does() {
    for route in ROUTES {
        let in_api = route.path.starts_with("/api/");
        assert_eq!(is_api(route), in_api, "{} {}", route.path, route.access);
    }
}

#[test]
fn every_route_has_a_summary_that_fits_the_table() {
    for route in ROUTES {
        let summary = route.summary;
        assert!(
            !summary.is_empty() && !summary.contains(['|', '\n']),
            "{}: {summary:?}",
            route.path
        );
        assert!(!summary.ends_with('.'), "{}: {summary:?}", route.path);
    }
}

#[test]
fn the_openapi_document_has_every_route_that_a_key_can_open_with_its_scope() {
    let document: Value = serde_json::from_str(&document::openapi(ROUTES)).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut routes = 0;
    let is_open = |route: &&Route| is_api(route) && route.access != Access::Socket;
    for route in ROUTES.iter().filter(is_open) {
        for verb in verbs(route) {
            let operation = &document["paths"][route.path][verb.to_lowercase()];
            assert_eq!(operation["summary"], route.summary, "{verb} {}", route.path);
            if let Access::Scope(scope) = route.access {
                let scopes = &operation["security"][0]["key"];
                assert_eq!(scopes[0], scope.to_string(), "{verb} {}", route.path);
            }
            let names = route.path.matches('{').count();
            let parameters = operation["parameters"].as_array();
            assert_eq!(
                parameters.map(Vec::len),
                Some(names),
                "{verb} {}",
                route.path
            );
            routes += 1;
        }
    }
    let operations = document["paths"].as_object().unwrap().values();
    let operations = operations.map(|path| path.as_object().unwrap().len());
    assert_eq!(operations.sum::<usize>(), routes);
}

#[test]
fn every_path_that_the_page_of_the_api_names_exists() {
    let page = fs::read_to_string(path("docs/rest.md")).unwrap();
    let mut found = 0;
    for (verb, path) in mentions(&page) {
        let mut routes = ROUTES.iter().filter(|route| names(route, &path));
        let exists = routes.any(|route| verb.is_none_or(|verb| verbs(route).contains(&verb)));
        assert!(
            exists,
            "docs/rest.md: no route {} {path}",
            verb.unwrap_or_default()
        );
        found += 1;
    }
    assert!(found > 40, "only {found} paths found in docs/rest.md");
}

#[test]
fn paths_are_found_in_a_page() {
    let page = "| `GET /user`, `POST /user` `{\"name\"}` | `/health` | `DELETE /key?id=ID` | see `curl /api/v1/x` |";
    let found: Vec<_> = mentions(page).collect();
    let wanted = [
        (Some("GET"), "/user".to_owned()),
        (Some("POST"), "/user".to_owned()),
        (None, "/health".to_owned()),
        (Some("DELETE"), "/key".to_owned()),
    ];
    assert_eq!(found, wanted);
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn is_api(route: &Route) -> bool {
    matches!(
        route.access,
        Access::Key | Access::Scope(_) | Access::Socket
    )
}

fn verbs(route: &Route) -> Vec<&'static str> {
    route.verb.name().split(", ").collect()
}

/// The paths in code spans of a page, each with its method when one stands before it. Spans of other commands are left
/// out.
fn mentions(page: &str) -> impl Iterator<Item = (Option<&str>, String)> {
    const VERBS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
    let spans = page
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    spans.filter_map(|span| {
        let (verb, path) = match span.split_once(' ') {
            Some((verb, path)) => (Some(verb), path),
            None => (None, span),
        };
        let is_known = verb.is_none_or(|verb| VERBS.contains(&verb)) && path.starts_with('/');
        let path = path.split('?').next().unwrap_or_default().to_owned();
        (is_known && path != "/api/v1").then_some((verb, path))
    })
}

/// Whether a path as documents write it, `ID` for a number, is that of a route, with or without the API's root.
fn names(route: &Route, path: &str) -> bool {
    let fits = |path: &str| {
        let mut parts = path.split('/');
        let same = route.path.split('/').all(|part| {
            let given = parts.next();
            given.is_some_and(|given| {
                given == part
                    || part.starts_with('{') && given.chars().all(|c| c.is_ascii_uppercase())
            })
        });
        same && parts.next().is_none()
    };
    fits(path) || fits(&format!("/api/v1{path}"))
}
