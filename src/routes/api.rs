//! API requests: authentication, route, scope, then the handler.

use hyper::body::Body as HttpBody;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ALLOW,
    HeaderValue, ORIGIN,
};
use hyper::{Method, Request, Response, StatusCode};

use super::route::{Access, Found, Handler, Route, find};
use super::table::ROUTES;
use crate::admin::problem::{ApiError, Code};
use crate::admin::{AdminContext, ApiCall, Style};
use crate::net::body::{self, Body};
use crate::net::connection::Origin;
use crate::net::gate::{Holder, Ticket};
use crate::status::http_counters::HttpCounters;
use crate::system_clock;
use hearth_core::state::principal::Principal;

/// Kind of the [`Holder`] of a connection that an API key was used on: its key is the number of that.
const API_KEY: &str = "api key";

/// Proves the connection of a request with a valid API key.
fn prove(principal: &Principal, ticket: Option<&Ticket>) {
    let (Principal::ApiKey { id, .. }, Some(ticket)) = (principal, ticket) else {
        return;
    };
    let mut key = [0; 32];
    for (byte, of_number) in key.iter_mut().zip(id.number().to_be_bytes()) {
        *byte = of_number;
    }
    ticket.prove(Holder::new(API_KEY, key));
}

fn is_api(route: &Route) -> bool {
    matches!(
        route.access,
        Access::Key | Access::Scope(_) | Access::Socket
    )
}

/// Answers an API request, also of pages from elsewhere (cross-origin resource sharing).
///
/// Any origin may read answers: what authorizes a request is a key that the page itself must have, and never anything
/// that a browser adds by itself, as it would add a cookie. Sites in the internet get no access to private networks
/// (`Access-Control-Allow-Private-Network`). Source: the Fetch standard, section 3.2 (HTTP extensions).
pub async fn answer<B: HttpBody>(
    admin: &AdminContext,
    counters: &HttpCounters,
    origin: Origin,
    request: Request<B>,
) -> Response<Body> {
    let headers = request.headers();
    let is_cross_origin = headers.contains_key(ORIGIN);
    // Browsers ask without a key.
    let is_preflight =
        request.method() == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match is_cross_origin && is_preflight {
        true => preflight(),
        false => answer_to(admin, counters, origin, request).await,
    };
    if is_cross_origin {
        let headers = response.headers_mut();
        let exposed = HeaderValue::from_static("ETag, Retry-After");
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    response
}

/// The answer to a preflight request, the same for all paths.
fn preflight() -> Response<Body> {
    let mut response = body::status(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE"),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "Authorization, Content-Type, If-Match",
        ),
        (ACCESS_CONTROL_MAX_AGE, "3600"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Answers an API request. The scope of the route is checked here; a handler that does more than its route is for
/// checks the scope of that as well.
async fn answer_to<B: HttpBody>(
    admin: &AdminContext,
    counters: &HttpCounters,
    origin: Origin,
    request: Request<B>,
) -> Response<Body> {
    let now = system_clock::now();
    let (parts, content) = request.into_parts();
    let path = parts.uri.path();
    let style = Style::of(path);
    // First of all, so that unauthenticated clients do not learn which paths exist.
    let principal = match admin.authenticate(origin, &parts.headers, now) {
        Ok(principal) => principal,
        Err(refusal) => return refusal.response(style),
    };
    prove(&principal, parts.extensions.get());
    let (number, route, params) = match find(ROUTES, &parts.method, path, is_api) {
        Found::Route(number, route, params) => (number, route, params),
        Found::OtherMethod(allowed) => {
            let mut response =
                style.refuse(&ApiError::new(Code::MethodNotAllowed, "method not allowed"));
            if let Ok(allowed) = HeaderValue::try_from(allowed) {
                response.headers_mut().insert(ALLOW, allowed);
            }
            return response;
        }
        Found::Unreadable => {
            return style.refuse(&ApiError::invalid("the path is not valid UTF-8"));
        }
        Found::Nothing => return style.refuse(&ApiError::new(Code::NotFound, "Not Found")),
    };
    if let Access::Scope(scope) = route.access
        && !principal.scopes().allow(scope)
    {
        let response = style.refuse(&ApiError::lacks(&principal, scope));
        counters.count(number, response.status());
        return response;
    }
    if route.access == Access::Socket && principal != Principal::Socket {
        let response = style.refuse(&ApiError::needs_socket(&principal));
        counters.count(number, response.status());
        return response;
    }
    let bound = route.body.bytes(&admin.limits);
    let read = body::read_limited(content, bound, admin.limits.request_timeout);
    let response = match read.await {
        Ok(bytes) => {
            let handled = match ApiCall::new(admin, principal, &parts, params, &bytes, now) {
                Some(call) => match route.handler {
                    Handler::Api(handler) => handler(&call).await,
                    Handler::ApiNow(handler) => handler(&call),
                    _ => Err(ApiError::new(Code::NotFound, "Not Found")),
                },
                None => Err(ApiError::invalid("the query is not valid UTF-8")),
            };
            handled.unwrap_or_else(|fault| style.refuse(&fault))
        }
        Err(fault) => {
            let status = fault.status();
            let mut response = style.refuse(&ApiError::invalid(&fault.to_string()));
            *response.status_mut() = status;
            response
        }
    };
    counters.count(number, response.status());
    response
}

/// Response of the admin socket for paths outside of the API.
pub fn outside() -> Response<Body> {
    body::text(StatusCode::NOT_FOUND, "the admin socket serves /api/ only")
}
