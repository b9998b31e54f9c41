//! API documentation made from the route table: an OpenAPI document, and docs/api.md.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::route::{Access, Bound, Route, Verb};

/// OpenAPI 3.1 document of the API routes with their scopes.
pub fn openapi(routes: &[Route]) -> String {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        let security = match route.access {
            Access::Key => json!([{"key": []}]),
            Access::Scope(scope) => json!([{"key": [scope.to_string()]}]),
            _ => continue,
        };
        let operation = json!({
            "summary": route.summary,
            "parameters": parameters(route.path),
            "security": security,
            "responses": {"200": {"description": "OK"}, "default": {"description": "Error"}},
        });
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(operations) = path.as_object_mut() {
            operations.insert(method(route.verb).to_owned(), operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "hearth", "version": env!("CARGO_PKG_VERSION")},
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "paths": paths,
    })
    .to_string()
}

fn method(verb: Verb) -> &'static str {
    match verb {
        Verb::Any | Verb::Read | Verb::Get => "get",
        Verb::Head => "head",
        Verb::Post => "post",
        Verb::Put => "put",
        Verb::Patch => "patch",
        Verb::Delete => "delete",
    }
}

fn parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|segment| {
        let name = segment.strip_prefix('{')?.strip_suffix('}')?;
        Some(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
    });
    names.collect()
}

/// Markdown table with one row per route.
pub fn markdown(routes: &[Route]) -> String {
    let mut text = String::from(
        "| method | path | access | body limit | description |\n|---|---|---|---|---|\n",
    );
    for route in routes {
        let body = match route.body {
            Bound::None => "none".to_owned(),
            Bound::Bytes(bytes) => format!("{} KiB", bytes / 1024),
            Bound::Limit(key, _) => format!("`{key}`"),
            Bound::AtLeast(bytes, _) => format!("{} KiB", bytes / 1024),
            Bound::Handler => "`limits.node_answer`".to_owned(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | `{}` | {} | {body} | {} |",
            route.verb.name(),
            route.path,
            route.access,
            route.summary,
        );
    }
    text
}
