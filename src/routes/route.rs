//! Routes, and how a request is matched to one.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};

use crate::admin::{self, AdminContext, ApiCall};
use crate::config::Limits;
use crate::control::context::{ControlContext, NoiseRequest};
use crate::control::ts2021::Peer;
use crate::net::body::Body;
use crate::net::params::Params;
use crate::net::query::unescaped;
use crate::net::upgrade::PendingResponse;
use crate::relay::context::RelayContext;
use crate::web::WebContext;
use hearth_core::state::scope::Scope;

/// HTTP methods of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Any method.
    Any,
    /// GET and HEAD.
    Read,
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
}

impl Verb {
    /// Whether the route accepts this method.
    fn takes(self, method: &Method) -> bool {
        match self {
            Self::Any => true,
            Self::Read => method == Method::GET || method == Method::HEAD,
            Self::Get => method == Method::GET,
            Self::Head => method == Method::HEAD,
            Self::Post => method == Method::POST,
            Self::Put => method == Method::PUT,
            Self::Patch => method == Method::PATCH,
            Self::Delete => method == Method::DELETE,
        }
    }

    /// The methods in the format of the `Allow` header; also the `method` label of metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Read => "GET, HEAD",
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// Who can access a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone.
    Public,
    /// Clients inside their Noise session, with a proven machine key.
    Noise,
    /// Any API key, or the admin socket.
    Key,
    /// An API key with this scope, or the admin socket.
    Scope(Scope),
    /// The admin socket alone, whatever the scopes of an API key.
    Socket,
    /// Monitoring systems, through the listener of `metrics.listen`.
    Metrics,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => f.write_str("public"),
            Self::Noise => f.write_str("Noise session"),
            Self::Key => f.write_str("any API key"),
            Self::Scope(scope) => scope.fmt(f),
            Self::Socket => f.write_str("admin socket only"),
            Self::Metrics => f.write_str("`metrics.listen`"),
        }
    }
}

/// Longest body of a request. It is read before the handler runs, except with [`Bound::Handler`].
#[derive(Clone, Copy)]
pub enum Bound {
    /// No body.
    None,
    /// A number of bytes.
    Bytes(usize),
    /// A limit in the configuration, with its key.
    Limit(&'static str, fn(&Limits) -> usize),
    /// The larger of a limit and a number of bytes.
    AtLeast(usize, fn(&Limits) -> usize),
    /// The handler reads the body, with its own limit.
    Handler,
}

impl Bound {
    /// The limit in bytes.
    pub fn bytes(self, limits: &Limits) -> usize {
        match self {
            Self::None | Self::Handler => 0,
            Self::Bytes(bytes) => bytes,
            Self::Limit(_, limit) => limit(limits),
            Self::AtLeast(bytes, limit) => limit(limits).max(bytes),
        }
    }
}

/// Pending response of an API handler.
pub type ApiFuture<'a> = Pin<Box<dyn Future<Output = admin::ApiResult> + Send + 'a>>;

/// Pending response to a form.
pub type WebFuture<'a> = Pin<Box<dyn Future<Output = Response<Body>> + Send + 'a>>;

/// Handler of a route.
#[derive(Clone, Copy)]
pub enum Handler {
    /// A fixed response.
    Fixed(fn() -> Response<Body>),
    /// A function of the request head.
    Head(fn(&Parts) -> Response<Body>),
    /// The relay.
    Relay(fn(&RelayContext, &Parts) -> Response<Body>),
    /// Control protocol outside of Noise.
    Control(fn(&Arc<ControlContext>, &Parts) -> Response<Body>),
    /// Control protocol outside of Noise, with a body.
    ControlBody(fn(&ControlContext, &[u8]) -> Response<Body>),
    /// Control protocol inside Noise.
    Noise(fn(Arc<ControlContext>, NoiseRequest) -> PendingResponse),
    /// Control protocol inside Noise, where the handler reads the body.
    NoiseBody(fn(Arc<ControlContext>, Peer, Request<Incoming>) -> PendingResponse),
    /// Upgrade to a Noise session; the router answers the requests inside.
    Ts2021,
    /// A web page.
    Web(fn(&WebContext, &Parts, &Params) -> Response<Body>),
    /// A form of a web page: its path parameters, head, source and body.
    WebForm(for<'a> fn(&'a WebContext, &'a Params, &'a Parts, IpAddr, &'a [u8]) -> WebFuture<'a>),
    /// An API handler.
    Api(for<'a> fn(&'a ApiCall<'a>) -> ApiFuture<'a>),
    /// An API handler that is not async.
    ApiNow(fn(&ApiCall<'_>) -> admin::ApiResult),
    /// `GET /health`.
    Health(fn(&AdminContext) -> Response<Body>),
    /// Served by the metrics listener; listed for the documentation.
    Metrics,
}

/// One route.
pub struct Route {
    /// Its methods.
    pub verb: Verb,
    /// Path pattern; `{name}` matches one segment, `{*name}` at the end matches the rest.
    pub path: &'static str,
    /// Who can access it.
    pub access: Access,
    /// Longest body.
    pub body: Bound,
    /// Its handler.
    pub handler: Handler,
    /// Summary for the documentation.
    pub summary: &'static str,
}

/// Result of matching a request.
pub enum Found<'a> {
    /// The route, with its index in the table.
    Route(usize, &'a Route, Params),
    /// The path exists with other methods, in the format of the `Allow` header.
    OtherMethod(String),
    /// The escapes in the path are not UTF-8.
    Unreadable,
    /// No route matches.
    Nothing,
}

/// Finds the first matching route among those that `serves` accepts.
pub fn find<'a>(
    routes: &'a [Route],
    method: &Method,
    path: &str,
    serves: impl Fn(&Route) -> bool,
) -> Found<'a> {
    let mut allowed: Vec<&str> = Vec::new();
    for (number, route) in routes.iter().enumerate() {
        if !matches(route.path, path) || !serves(route) {
            continue;
        }
        if route.verb.takes(method) {
            return match params(route.path, path) {
                Some(params) => Found::Route(number, route, params),
                None => Found::Unreadable,
            };
        }
        if !allowed.contains(&route.verb.name()) {
            allowed.push(route.verb.name());
        }
    }
    match allowed.is_empty() {
        true => Found::Nothing,
        false => Found::OtherMethod(allowed.join(", ")),
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    for wanted in pattern.split('/') {
        if wanted.starts_with("{*") {
            return segments.next().is_some();
        }
        let Some(segment) = segments.next() else {
            return false;
        };
        if !wanted.starts_with('{') && wanted != segment {
            return false;
        }
    }
    segments.next().is_none()
}

/// Splits the path before decoding it, so that an escaped slash is part of a segment.
fn params(pattern: &'static str, path: &str) -> Option<Params> {
    let mut params = Vec::new();
    let mut rest = path;
    for wanted in pattern.split('/') {
        if let Some(name) = wanted.strip_prefix("{*") {
            params.push((name.trim_end_matches('}'), unescaped(rest, false)?));
            break;
        }
        let (segment, after) = rest.split_once('/').unwrap_or((rest, ""));
        if let Some(name) = wanted.strip_prefix('{') {
            params.push((name.trim_end_matches('}'), unescaped(segment, false)?));
        }
        rest = after;
    }
    Some(Params::new(params))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::body;
    use hyper::StatusCode;

    const fn route(verb: Verb, path: &'static str) -> Route {
        Route {
            verb,
            path,
            access: Access::Public,
            body: Bound::None,
            handler: Handler::Fixed(|| body::status(StatusCode::OK)),
            summary: "",
        }
    }

    static ROUTES: &[Route] = &[
        route(Verb::Post, "/user/register"),
        route(Verb::Get, "/user/{id}"),
        route(Verb::Delete, "/user/{id}"),
        route(Verb::Post, "/user/{id}/rename/{name}"),
        route(Verb::Any, "/rest/{*rest}"),
    ];

    fn found(method: Method, path: &str) -> Result<(usize, Params), String> {
        match find(ROUTES, &method, path, |_| true) {
            Found::Route(number, _, params) => Ok((number, params)),
            Found::OtherMethod(allowed) => Err(allowed),
            Found::Unreadable => Err("unreadable".into()),
            Found::Nothing => Err(String::new()),
        }
    }

    #[test]
    fn paths_are_split_first_and_decoded_then() {
        let (number, params) = found(Method::POST, "/user/1/rename/a%2Fb+c").unwrap();
        assert_eq!(
            (number, params.get("id"), params.get("name")),
            (3, "1", "a/b+c")
        );
        assert_eq!(params.get("none"), "");
        for bad in ["%", "%4", "%+1", "%ff"] {
            let path = format!("/user/{bad}");
            assert_eq!(
                found(Method::GET, &path),
                Err("unreadable".into()),
                "{path}"
            );
        }
    }

    #[test]
    fn an_empty_segment_is_a_name_and_a_missing_one_is_not() {
        assert_eq!(found(Method::DELETE, "/user/").unwrap().0, 2);
        assert_eq!(found(Method::DELETE, "/user"), Err(String::new()));
        assert_eq!(found(Method::GET, "/user/1/2"), Err(String::new()));
    }

    #[test]
    fn allowed_methods_are_listed_and_rest_parameters_are_complete() {
        assert_eq!(found(Method::PUT, "/user/1"), Err("GET, DELETE".into()));
        assert_eq!(found(Method::GET, "/user/register").unwrap().0, 1);
        let (_, params) = found(Method::PUT, "/rest/a/b/").unwrap();
        assert_eq!(params.get("rest"), "a/b/");
        assert_eq!(found(Method::PUT, "/rest"), Err(String::new()));
    }
}
