//! Features that hearth does not support: responses that make clients report this and continue.

use hyper::{Response, StatusCode};
use serde_json::json;

use crate::control::context::{ControlContext, NoiseRequest};
use crate::control::node_auth::authenticate;
use crate::net::body;
use crate::net::body::Body;

/// `POST /machine/feature/query`: the client shows the text to its user and exits.
/// Source: `enableFeatureInteractive` in tailscale `cmd/tailscale/cli/serve_legacy.go`.
pub async fn feature(context: &ControlContext, request: NoiseRequest) -> Response<Body> {
    let (_, request) = match authenticate(context, &request) {
        Ok(asked) => asked,
        Err(fault) => return fault.answer(),
    };
    let text = match request.feature().as_deref() {
        Ok("serve") => {
            "HTTPS certificates for devices are not available on this tailnet.\n\
            Use serve without HTTPS: tailscale serve --http=80 TARGET, or --tcp=PORT."
        }
        Ok("funnel") => {
            "Funnel is not available on this tailnet.\n\
            Inside the tailnet use: tailscale serve --http=80 TARGET."
        }
        Ok(_) => "The control server does not support this feature.",
        Err(fault) => return body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    };
    body::json(StatusCode::OK, &json!({ "Complete": false, "Text": text }))
}

/// `POST /machine/set-dns`: a TXT record for an ACME DNS challenge.
/// Source of the refusals: `serveSetDNS` in tailscale `tstest/integration/testcontrol/testcontrol.go`.
pub async fn set_dns(context: &ControlContext, request: NoiseRequest) -> Response<Body> {
    let request = match authenticate(context, &request) {
        Ok((_, request)) => request,
        Err(fault) => return fault.answer(),
    };
    match request.dns_record() {
        Ok((name, kind)) if kind == "TXT" && !name.is_empty() => not_offered(
            "this control server publishes no DNS records, so HTTPS certificates are not available",
        ),
        Ok((_, kind)) if kind == "TXT" => {
            body::text(StatusCode::BAD_REQUEST, "missing name or value")
        }
        Ok(_) => body::text(StatusCode::BAD_REQUEST, "only TXT records are supported"),
        Err(fault) => body::text(StatusCode::BAD_REQUEST, &fault.to_string()),
    }
}

/// `POST /machine/id-token`: an identity token of the node, for other services.
pub async fn id_token(context: &ControlContext, request: NoiseRequest) -> Response<Body> {
    match authenticate(context, &request) {
        Ok(_) => not_offered("this control server issues no identity tokens"),
        Err(fault) => fault.answer(),
    }
}

/// `/machine/tka/...`: Tailnet Lock. The client logs the error and keeps its lock state.
pub fn tailnet_lock() -> Response<Body> {
    not_offered("Tailnet Lock is not supported by this control server")
}

/// `POST /machine/webclient/...`: clients use this with Tailscale's own control servers only, and with
/// others rely on their own checks. Source: `controlSupportsCheckMode` in tailscale `client/web/auth.go`.
pub fn web_client() -> Response<Body> {
    not_offered("check mode for the web interface of devices is not supported")
}

fn not_offered(text: &str) -> Response<Body> {
    body::text(StatusCode::NOT_IMPLEMENTED, text)
}
