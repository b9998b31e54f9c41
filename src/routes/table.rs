//! The route table.

use hyper::StatusCode;

use super::document;
use super::route::{Access, Bound, Handler, Route, Verb};
use crate::admin::v1::policy::BODY_MAX as POLICY_BYTES;
use crate::control::{c2n_reply, key, map, register, reports, ssh_action, ts2021, unsupported};
use crate::net::body;
use crate::relay::{http as relay_http, probes};
use crate::web;
use hearth_core::state::scope::{Area, Scope};

/// Body of a short client request.
const SMALL: Bound = Bound::Bytes(32 * 1024);
/// Body of an API request.
const ADMIN: Bound = Bound::Limit("limits.admin_body", |limits| limits.admin_body);
/// Body of an API request with a policy, which is longer than other bodies, and escaped in JSON.
const POLICY: Bound = Bound::AtLeast(POLICY_BYTES, |limits| limits.admin_body);

const fn read(area: Area) -> Access {
    Access::Scope(Scope::read(area))
}

const fn write(area: Area) -> Access {
    Access::Scope(Scope::write(area))
}

const fn route(
    verb: Verb,
    path: &'static str,
    access: Access,
    body: Bound,
    handler: Handler,
    summary: &'static str,
) -> Route {
    Route {
        verb,
        path,
        access,
        body,
        handler,
        summary,
    }
}

/// An API route: the method of [`crate::admin::ApiCall`] that answers, with its path parameters;
/// `now` marks methods that are not async.
macro_rules! api {
    ($verb:ident $path:literal, $access:expr, $body:expr, $method:ident($($given:tt),*), $summary:literal) => {
        route(
            Verb::$verb,
            $path,
            $access,
            $body,
            Handler::Api(|call| Box::pin(async move { call.$method($(api!(@ call $given)),*).await })),
            $summary,
        )
    };
    ($verb:ident $path:literal, $access:expr, now $method:ident($($given:tt),*), $summary:literal) => {
        api!($verb $path, $access, ADMIN, now $method($($given),*), $summary)
    };
    ($verb:ident $path:literal, $access:expr, $body:expr, now $method:ident($($given:tt),*), $summary:literal) => {
        route(
            Verb::$verb,
            $path,
            $access,
            $body,
            Handler::ApiNow(|call| call.$method($(api!(@ call $given)),*)),
            $summary,
        )
    };
    (@ $call:ident true) => { true };
    (@ $call:ident false) => { false };
    (@ $call:ident $name:literal) => { $call.params.get($name) };
}

/// A route inside Noise.
macro_rules! noise {
    ($verb:ident $path:literal, $body:expr, |$context:ident, $request:ident| $answer:expr, $summary:literal) => {
        route(
            Verb::$verb,
            $path,
            Access::Noise,
            $body,
            Handler::Noise(|$context, $request| Box::pin(async move { $answer })),
            $summary,
        )
    };
}

/// All routes.
pub static ROUTES: &[Route] = &[
    // Control protocol.
    route(
        Verb::Read,
        "/key",
        Access::Public,
        Bound::None,
        Handler::Control(|context, request| key::key(request, &context.noise.public_key())),
        "Noise public key of the server",
    ),
    route(
        Verb::Any,
        ts2021::PATH,
        Access::Public,
        Bound::None,
        Handler::Ts2021,
        "Upgrade to a control connection (Noise, then HTTP/2)",
    ),
    route(
        Verb::Head,
        "/machine/ping-response",
        Access::Public,
        Bound::None,
        Handler::Control(|context, request| context.ping_response(request)),
        "Proof that a node reaches this server",
    ),
    noise!(Post "/machine/register", Bound::Limit("limits.register_body", |limits| limits.register_body),
        |context, request| register::register(&context, request).await,
        "Register a node, or log it out"),
    noise!(Post "/machine/map", Bound::Limit("limits.map_body", |limits| limits.map_body),
        |context, request| map::map(context, request).await,
        "Network map, once or as a stream"),
    route(
        Verb::Post,
        "/machine/c2n/{call}",
        Access::Noise,
        Bound::Handler,
        Handler::NoiseBody(|context, peer, request| {
            Box::pin(async move { c2n_reply::answer(&context, peer, request).await })
        }),
        "Reply of a node to a request of the server",
    ),
    noise!(Post "/machine/update-health", SMALL, |context, request| reports::health(&context, request).await,
        "Health warnings of a node (clients before October 2025)"),
    noise!(Post "/machine/audit-log", SMALL, |context, request| reports::audit(&context, request).await,
        "Audit message of a client"),
    noise!(Patch "/machine/set-device-attr", SMALL,
        |context, request| reports::attributes(&context, request).await,
        "Device posture attributes, set by the node itself"),
    noise!(Post "/machine/feature/query", SMALL, |context, request| unsupported::feature(&context, request).await,
        "Whether a feature (Serve, Funnel) is available"),
    noise!(Post "/machine/set-dns", SMALL, |context, request| unsupported::set_dns(&context, request).await,
        "DNS record for an HTTPS certificate; not supported"),
    noise!(Post "/machine/id-token", SMALL, |context, request| unsupported::id_token(&context, request).await,
        "Identity token; not supported"),
    noise!(Post "/machine/ssh/notify", SMALL, |context, request| reports::ssh_event(&context, request).await,
        "Failed recording of an SSH session"),
    noise!(Get "/machine/ssh/action/{*nodes}", Bound::None,
        |context, request| ssh_action::action(&context, request.peer, &request.parts).await,
        "Action for an SSH connection in check mode"),
    noise!(Get "/machine/whoami", Bound::None, |context, request| c2n_reply::whoami(&context, request.peer),
        "The machine and its nodes, as text"),
    noise!(Any "/machine/tka/{*rest}", Bound::None, |_context, _request| unsupported::tailnet_lock(),
        "Tailnet Lock; not supported"),
    noise!(Any "/machine/webclient/{*rest}", Bound::None, |_context, _request| unsupported::web_client(),
        "Check mode of the web client; not supported"),
    // Relay.
    route(
        Verb::Any,
        relay_http::PATH,
        Access::Public,
        Bound::None,
        Handler::Relay(|relay, request| relay.upgrade(request)),
        "Upgrade to a DERP connection",
    ),
    route(
        Verb::Read,
        "/derp/probe",
        Access::Public,
        Bound::None,
        Handler::Fixed(relay_http::probe),
        "Latency probe",
    ),
    route(
        Verb::Read,
        "/derp/latency-check",
        Access::Public,
        Bound::None,
        Handler::Fixed(relay_http::probe),
        "Latency probe (older clients)",
    ),
    route(
        Verb::Post,
        relay_http::VERIFY,
        Access::Public,
        Bound::Bytes(relay_http::MAX_VERIFY_BYTES),
        Handler::ControlBody(|context, body| {
            relay_http::verify(body, |key| context.engine.snapshot().admits(key))
        }),
        "Verify a client for a relay",
    ),
    route(
        Verb::Read,
        "/generate_204",
        Access::Public,
        Bound::None,
        Handler::Head(probes::generate_204),
        "Captive portal detection",
    ),
    route(
        Verb::Read,
        "/bootstrap-dns",
        Access::Public,
        Bound::None,
        Handler::Relay(|relay, request| relay.names.answer(request)),
        "Addresses of this server, for clients without working DNS",
    ),
    route(
        Verb::Read,
        "/robots.txt",
        Access::Public,
        Bound::None,
        Handler::Fixed(probes::robots),
        "Disallow all crawlers",
    ),
    route(
        Verb::Read,
        "/version",
        Access::Public,
        Bound::None,
        Handler::Fixed(probes::version),
        "Version of hearth",
    ),
    route(
        Verb::Read,
        "/health",
        Access::Public,
        Bound::None,
        Handler::Health(|admin| probes::health(admin.database_fault().as_deref())),
        "Health check; 503 with the reason when the database is read-only",
    ),
    route(
        Verb::Get,
        "/metrics",
        Access::Metrics,
        Bound::None,
        Handler::Metrics,
        "Prometheus metrics",
    ),
    // Web pages.
    route(
        Verb::Read,
        "/",
        Access::Public,
        Bound::None,
        Handler::Web(|web, _, _| web::home(web)),
        "Start page",
    ),
    route(
        Verb::Read,
        "/join",
        Access::Public,
        Bound::None,
        Handler::Web(|web, request, _| web::join(web, request)),
        "How to add a device",
    ),
    route(
        Verb::Read,
        "/join/",
        Access::Public,
        Bound::None,
        Handler::Web(|web, request, _| web::join(web, request)),
        "How to add a device",
    ),
    route(
        Verb::Read,
        "/apple",
        Access::Public,
        Bound::None,
        Handler::Web(|web, _, _| web::apple(web)),
        "How to add an Apple device",
    ),
    route(
        Verb::Read,
        "/apple/{variant}",
        Access::Public,
        Bound::None,
        Handler::Web(|web, _, params| web::apple_profile(web, params.get("variant"))),
        "Profile that sets the server on an Apple device",
    ),
    route(
        Verb::Read,
        "/windows",
        Access::Public,
        Bound::None,
        Handler::Web(|web, _, _| web::windows(web)),
        "How to add a Windows computer",
    ),
    route(
        Verb::Read,
        "/register/{id}",
        Access::Public,
        Bound::None,
        Handler::Web(|web, _, params| web::register(web, params.get("id"))),
        "Page of a pending registration",
    ),
    route(
        Verb::Post,
        "/register/{id}",
        Access::Public,
        Bound::Bytes(web::FORM_MAX),
        Handler::WebForm(|web, params, request, source, form| {
            Box::pin(web::redeem(web, params.get("id"), request, source, form))
        }),
        "Join with the key of an invitation: field `key` of a form",
    ),
    route(
        Verb::Read,
        "/ssh/{id}",
        Access::Public,
        Bound::None,
        Handler::Web(|web, _, params| web::ssh(web, params.get("id"))),
        "Page of an SSH connection that waits for approval",
    ),
    // Headscale's API v1.
    api!(Get "/api/v1/health", Access::Key, ADMIN, health(), "Health of the database; with `?alive=true` also 200 when it is read-only"),
    api!(Post "/api/v1/user", write(Area::Users), ADMIN, create_user(), "Create a user"),
    api!(Get "/api/v1/user", read(Area::Users), now list_users(), "List users"),
    api!(Post "/api/v1/user/{id}/rename/{name}", write(Area::Users), ADMIN, rename_user("id", "name"),
        "Rename a user"),
    api!(Post "/api/v1/user/{id}/role", write(Area::Users), ADMIN, set_role("id"), "Set a user's role"),
    api!(Post "/api/v1/user/{id}/expiry", write(Area::Users), ADMIN, set_user_expiry("id"),
        "Set the key expiry of a user's nodes"),
    api!(Delete "/api/v1/user/{id}", write(Area::Users), ADMIN, delete_user("id"), "Delete a user"),
    api!(Post "/api/v1/preauthkey", write(Area::AuthKeys), ADMIN, create_preauth_key(), "Create a preauth key"),
    api!(Get "/api/v1/preauthkey", read(Area::AuthKeys), now list_preauth_keys(), "List preauth keys"),
    api!(Post "/api/v1/preauthkey/expire", write(Area::AuthKeys), ADMIN, expire_preauth_key(),
        "Expire a preauth key"),
    api!(Delete "/api/v1/preauthkey", write(Area::AuthKeys), ADMIN, delete_preauth_key(), "Delete a preauth key"),
    api!(Post "/api/v1/apikey", write(Area::ApiAccessTokens), ADMIN, create_api_key(), "Create an API key"),
    api!(Get "/api/v1/apikey", read(Area::ApiAccessTokens), now list_api_keys(), "List API keys"),
    api!(Post "/api/v1/apikey/expire", write(Area::ApiAccessTokens), ADMIN, expire_api_key(), "Expire an API key"),
    api!(Delete "/api/v1/apikey/{prefix}", write(Area::ApiAccessTokens), ADMIN, delete_api_key("prefix"),
        "Delete an API key"),
    api!(Get "/api/v1/node", read(Area::DevicesCore), now list_nodes(), "List nodes"),
    api!(Post "/api/v1/node/register", write(Area::DevicesCore), ADMIN, register_node(),
        "Approve a pending registration (Headscale before 0.29)"),
    api!(Post "/api/v1/node/backfillips", write(Area::DevicesCore), ADMIN, backfill_addresses(),
        "Assign new addresses to nodes outside the prefixes"),
    api!(Post "/api/v1/node/wireguard", write(Area::DevicesCore), ADMIN, add_wireguard(),
        "Add a WireGuard-only device"),
    api!(Get "/api/v1/node/{id}", read(Area::DevicesCore), now show_node("id"), "Show a node"),
    api!(Delete "/api/v1/node/{id}", write(Area::DevicesCore), ADMIN, delete_node("id"), "Delete a node"),
    api!(Post "/api/v1/node/{id}/expire", write(Area::DevicesCore), ADMIN, expire_node("id"),
        "Set or disable a node's key expiry"),
    api!(Post "/api/v1/node/{id}/rename/{name}", write(Area::DevicesCore), ADMIN, rename_node("id", "name"),
        "Rename a node"),
    api!(Post "/api/v1/node/{id}/tags", write(Area::DevicesCore), ADMIN, set_tags("id"), "Set a node's tags"),
    api!(Post "/api/v1/node/{id}/approve_routes", write(Area::DevicesRoutes), ADMIN, approve_routes("id"),
        "Approve a node's routes"),
    api!(Post "/api/v1/node/{id}/user", write(Area::DevicesCore), ADMIN, move_node("id"), "Move a node to a user"),
    api!(Post "/api/v1/node/{id}/ip", write(Area::DevicesCore), ADMIN, set_addresses("id"),
        "Set a node's addresses"),
    api!(Post "/api/v1/node/{id}/approve", write(Area::DevicesCore), ADMIN, approve_device("id"),
        "Approve a device"),
    api!(Post "/api/v1/node/{id}/disapprove", write(Area::DevicesCore), ADMIN, revoke_approval("id"),
        "Revoke a device's approval"),
    api!(Post "/api/v1/node/{id}/c2n", write(Area::DevicesCore), ADMIN, ask_node("id"),
        "Send an HTTP request to a node's client"),
    api!(Post "/api/v1/node/{id}/ping", write(Area::DevicesCore), ADMIN, ping_node("id"), "Ping from a node"),
    api!(Post "/api/v1/node/{id}/open", write(Area::DevicesCore), now open_page("id"),
        "Open a page in a node's browser"),
    api!(Get "/api/v1/node/{id}/attributes", read(Area::DevicesPostureAttributes), now show_attributes("id"),
        "Show a node's posture attributes"),
    api!(Post "/api/v1/node/{id}/attributes", write(Area::DevicesPostureAttributes), ADMIN, set_attributes("id"),
        "Set a node's posture attributes"),
    api!(Post "/api/v1/auth/register", write(Area::DevicesCore), ADMIN, approve_for_user(),
        "Approve a pending registration for a user"),
    api!(Post "/api/v1/auth/approve", write(Area::DevicesCore), ADMIN, approve(),
        "Approve a pending registration or SSH connection"),
    api!(Post "/api/v1/auth/reject", write(Area::DevicesCore), ADMIN, reject(),
        "Reject a pending registration or SSH connection"),
    api!(Get "/api/v1/dns/records", read(Area::Dns), now list_dns_records(), "List DNS records"),
    api!(Post "/api/v1/dns/records", write(Area::Dns), ADMIN, add_dns_record(), "Add a DNS record"),
    api!(Delete "/api/v1/dns/records", write(Area::Dns), ADMIN, delete_dns_records(), "Delete DNS records"),
    api!(Get "/api/v1/policy", read(Area::PolicyFile), now show_policy(), "Show the policy"),
    api!(Put "/api/v1/policy", write(Area::PolicyFile), POLICY, set_policy(), "Set the policy"),
    api!(Post "/api/v1/policy/check", read(Area::PolicyFile), POLICY, now check_policy(), "Check a policy"),
    // hearth's own API.
    api!(Get "/api/v1/hearth/policy/history", read(Area::PolicyFile), now list_policies(), "List policy versions"),
    api!(Get "/api/v1/hearth/policy/history/{version}", read(Area::PolicyFile), now show_policy_version("version"),
        "Show a policy version"),
    api!(Post "/api/v1/hearth/policy/rollback", write(Area::PolicyFile), ADMIN, roll_back_policy(),
        "Roll back to a policy version"),
    api!(Get "/api/v1/hearth/policy/why", read(Area::PolicyFile), now why(),
        "Explain which rule allows a connection, or why none does"),
    api!(Get "/api/v1/hearth/status", read(Area::NetworkingSettings), now status(), "Server status"),
    api!(Get "/api/v1/hearth/doctor", read(Area::NetworkingSettings), ADMIN, diagnose(), "Findings and advice"),
    api!(Get "/api/v1/hearth/wan", read(Area::NetworkingSettings), now show_wan(), "Public addresses"),
    api!(Post "/api/v1/hearth/wan", write(Area::NetworkingSettings), ADMIN, refresh_wan(),
        "Check for public addresses now"),
    api!(Get "/api/v1/hearth/relay", read(Area::NetworkingSettings), now relay(), "Relay and STUN counters"),
    api!(Get "/api/v1/hearth/pending", read(Area::DevicesCore), now list_pending(), "List pending registrations"),
    api!(Get "/api/v1/hearth/audit", read(Area::LogsConfiguration), ADMIN, audit(), "Audit log"),
    api!(Get "/api/v1/hearth/ssh", read(Area::DevicesCore), now list_ssh_checks(),
        "List SSH connections that wait for approval"),
    api!(Post "/api/v1/hearth/ssh/approve", write(Area::DevicesCore), now decide_ssh_check(true),
        "Approve an SSH connection"),
    api!(Post "/api/v1/hearth/ssh/reject", write(Area::DevicesCore), now decide_ssh_check(false),
        "Reject an SSH connection"),
    api!(Post "/api/v1/hearth/invite", write(Area::AuthKeys), ADMIN, invite(), "Create an invitation"),
    api!(Get "/api/v1/hearth/backup", Access::Socket, ADMIN, backup(),
        "A whole backup (tar.zst), with all private keys"),
    // API v2 of tailscale.com.
    api!(Get "/api/v2/tailnet/{tailnet}/acl", read(Area::PolicyFile), POLICY, v2_show_policy("tailnet"),
        "Show the policy"),
    api!(Post "/api/v2/tailnet/{tailnet}/acl", write(Area::PolicyFile), POLICY, v2_set_policy("tailnet"),
        "Set the policy"),
    api!(Post "/api/v2/tailnet/{tailnet}/acl/validate", read(Area::PolicyFile), POLICY,
        v2_validate_policy("tailnet"), "Check a policy, or run tests"),
    api!(Post "/api/v2/tailnet/{tailnet}/acl/preview", read(Area::PolicyFile), POLICY,
        v2_preview_policy("tailnet"), "List the rules that concern a user or an address"),
    route(
        Verb::Read,
        "/openapi.json",
        Access::Public,
        Bound::None,
        Handler::Fixed(|| {
            body::typed(
                StatusCode::OK,
                "application/json",
                document::openapi(ROUTES),
            )
        }),
        "OpenAPI document of this API",
    ),
];
