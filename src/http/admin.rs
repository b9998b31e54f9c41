//! placeholder
use super::body::{self, Body};
use hyper::{Request, Response, body::Incoming};
/// placeholder
pub enum Trust {
    /// s
    Socket,
    /// b
    Bearer,
}
/// placeholder
pub async fn handle(
    _app: &std::sync::Arc<super::App>,
    _trust: Trust,
    _request: Request<Incoming>,
) -> Response<Body> {
    body::text(hyper::StatusCode::NOT_FOUND, "not yet")
}
