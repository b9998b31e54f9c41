//! What clients ask for and hearth has not: answers from which they see that, and go on.

use hyper::{Response, StatusCode};
use serde_json::json;

use crate::control::context::{ControlContext, NoiseRequest};
use crate::control::node_auth::ask;
use crate::net::body;
use crate::net::body::Body;

/// `POST /machine/feature/query`: the client shows the text to its user and ends.
/// Source: `enableFeatureInteractive` in tailscale `cmd/tailscale/cli/serve_legacy.go`.
pub async fn feature(context: &ControlContext, request: NoiseRequest) -> Response<Body> {
    let (_, request) = match ask(context, &request) {
        Ok(asked) => asked,
        Err(answer) => return answer,
    };
    let text = match request.feature() {
        Ok("serve") => {
            "This network has no HTTPS certificates for its devices.\n\
             Without HTTPS it works: tailscale serve --http=80 TARGET, or --tcp=PORT."
        }
        Ok("funnel") => {
            "This network has no entry points on the internet, so there is no Funnel.\n\
             Inside the network it works: tailscale serve --http=80 TARGET."
        }
        Ok(_) => "The control server of this network does not know this feature.",
        Err(fault) => return body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    };
    body::json(StatusCode::OK, &json!({ "Complete": false, "Text": text }))
}

/// `POST /machine/set-dns`: a record that proves a name to a certificate authority.
/// Source of the refusals: `serveSetDNS` in tailscale `tstest/integration/testcontrol/testcontrol.go`.
pub async fn set_dns(context: &ControlContext, request: NoiseRequest) -> Response<Body> {
    let request = match ask(context, &request) {
        Ok((_, request)) => request,
        Err(answer) => return answer,
    };
    match request.dns_record() {
        Ok((name, "TXT")) if !name.is_empty() => not_offered(
            "this control server publishes no DNS records, so devices cannot get HTTPS certificates",
        ),
        Ok((_, "TXT")) => body::text(StatusCode::BAD_REQUEST, "missing name or value"),
        Ok(_) => body::text(StatusCode::BAD_REQUEST, "only TXT records are supported"),
        Err(fault) => body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    }
}

/// `POST /machine/id-token`: a token that says to others which node it is.
pub async fn id_token(context: &ControlContext, request: NoiseRequest) -> Response<Body> {
    match ask(context, &request) {
        Ok(_) => not_offered("this control server issues no identity tokens"),
        Err(answer) => answer,
    }
}

/// `/machine/tka/...`: the client logs the refusal, and its Tailnet Lock stays as it is.
pub fn tailnet_lock() -> Response<Body> {
    not_offered("this control server has no Tailnet Lock")
}

/// `POST /machine/webclient/...`: clients ask only control servers of Tailscale's own, and let their own
/// checks suffice with others. Source: `controlSupportsCheckMode` in tailscale `client/web/auth.go`.
pub fn web_client() -> Response<Body> {
    not_offered("this control server has no check mode for the web interface of devices")
}

fn not_offered(text: &str) -> Response<Body> {
    body::text(StatusCode::NOT_IMPLEMENTED, text)
}
