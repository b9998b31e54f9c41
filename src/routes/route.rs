//! One route, and how a request finds it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};

use crate::admin::{self, AdminContext, Call};
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

/// Which methods of HTTP a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Whatever the client sends.
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
    /// Whether the route takes this method.
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

    /// The methods as `Allow` lists them; also the `method` of metrics.
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

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everyone.
    Public,
    /// Clients inside their Noise session: the machine key is proven.
    Noise,
    /// Any API key, or the admin socket.
    Key,
    /// An API key with this scope, or the admin socket.
    Scope(Scope),
    /// Monitoring systems, on the listener of `metrics.listen`.
    Metrics,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => f.write_str("public"),
            Self::Noise => f.write_str("Noise session"),
            Self::Key => f.write_str("any API key"),
            Self::Scope(scope) => scope.fmt(f),
            Self::Metrics => f.write_str("`metrics.listen`"),
        }
    }
}

/// How long a request's body may be. It is read before the handler runs, but for [`Bound::Handler`].
#[derive(Clone, Copy)]
pub enum Bound {
    /// No body is read.
    None,
    /// So many bytes.
    Bytes(usize),
    /// A limit of the configuration, with its key.
    Limit(&'static str, fn(&Limits) -> usize),
    /// The larger of a limit and so many bytes.
    AtLeast(usize, fn(&Limits) -> usize),
    /// The handler reads, with a bound of its own.
    Handler,
}

impl Bound {
    /// The most bytes.
    pub fn bytes(self, limits: &Limits) -> usize {
        match self {
            Self::None | Self::Handler => 0,
            Self::Bytes(bytes) => bytes,
            Self::Limit(_, limit) => limit(limits),
            Self::AtLeast(bytes, limit) => limit(limits).max(bytes),
        }
    }
}

/// The answer of an API handler that is being made.
pub type ApiFuture<'a> = Pin<Box<dyn Future<Output = admin::Answer> + Send + 'a>>;

/// What answers.
#[derive(Clone, Copy)]
pub enum Handler {
    /// A fixed answer.
    Fixed(fn() -> Response<Body>),
    /// A function of the request's head.
    Head(fn(&Parts) -> Response<Body>),
    /// The relay and what is around it.
    Relay(fn(&RelayContext, &Parts) -> Response<Body>),
    /// The control protocol outside of Noise.
    Control(fn(&Arc<ControlContext>, &Parts) -> Response<Body>),
    /// The control protocol outside of Noise, with a body.
    ControlBody(fn(&ControlContext, &[u8]) -> Response<Body>),
    /// The control protocol inside Noise.
    Noise(fn(Arc<ControlContext>, NoiseRequest) -> PendingResponse),
    /// The same where the handler reads the body.
    NoiseBody(fn(Arc<ControlContext>, Peer, Request<Incoming>) -> PendingResponse),
    /// Upgrade to a Noise session, whose requests come back to the router.
    Ts2021,
    /// A page.
    Web(fn(&WebContext, &Params) -> Response<Body>),
    /// The API.
    Api(for<'a> fn(&'a Call<'a>) -> ApiFuture<'a>),
    /// The API where nothing is waited for.
    ApiNow(fn(&Call<'_>) -> admin::Answer),
    /// `GET /health`.
    Health(fn(&AdminContext) -> Response<Body>),
    /// The metrics listener answers; listed for the documentation.
    Metrics,
}

/// One route.
pub struct Route {
    /// Which methods it takes.
    pub verb: Verb,
    /// The path; `{name}` stands for one segment, `{*name}` at the end for the rest.
    pub path: &'static str,
    /// Who may ask.
    pub access: Access,
    /// How long the body may be.
    pub body: Bound,
    /// What answers.
    pub handler: Handler,
    /// What it does, in a few words.
    pub summary: &'static str,
}

/// What became of the search for a route.
pub enum Found<'a> {
    /// This one, with its number in the table.
    Route(usize, &'a Route, Params),
    /// The path exists, with other methods; they are listed as `Allow` wants them.
    OtherMethod(String),
    /// The path's escapes are not UTF-8.
    Unreadable,
    /// Nothing.
    Nothing,
}

/// Finds the route of a request among those that `serves` lets through; the first match counts.
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

/// The path is split first and decoded then, so that an escaped slash is part of a name.
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
    fn other_methods_are_named_and_rests_are_whole() {
        assert_eq!(found(Method::PUT, "/user/1"), Err("GET, DELETE".into()));
        assert_eq!(found(Method::GET, "/user/register").unwrap().0, 1);
        let (_, params) = found(Method::PUT, "/rest/a/b/").unwrap();
        assert_eq!(params.get("rest"), "a/b/");
        assert_eq!(found(Method::PUT, "/rest"), Err(String::new()));
    }
}
