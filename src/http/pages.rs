//! placeholder
use super::body::{self, Body};
use hyper::Response;
/// placeholder
pub fn handle(_app: &super::App, _parts: &hyper::http::request::Parts) -> Response<Body> {
    body::text(hyper::StatusCode::NOT_FOUND, "not found")
}
