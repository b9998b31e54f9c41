//! Policy endpoints of API v2 (tailscale.com), as gitops-pusher and the Terraform provider use them:
//! `/api/v2/tailnet/-/acl`, `acl/validate` and `acl/preview`.
//!
//! Source: tailscale `client/tailscale/acl.go` and `cmd/gitops-pusher/gitops-pusher.go`; headscale
//! `hscontrol/api/v2/acl.go`.

use std::net::SocketAddr;
use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER};
use hyper::header::{ACCEPT, ETAG, HeaderValue, IF_MATCH};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::admin::fields::NoFields;
use crate::admin::problem::ApiError;
use crate::admin::v1::policy;
use crate::admin::v1::policy::PolicyError;
use crate::admin::{AdminContext, ApiCall};
use crate::api::parse_flag;
use crate::net::body;
use crate::net::body::Body;
use crate::net::query::value;
use hearth_core::policy::{Cause, Diagnostic, Policy, as_json};

/// Path prefix of API v2.
pub(super) const ROOT: &str = "/api/v2/";

const HUJSON: &str = "application/hujson";

/// Returned when there is no policy. It means the same.
const DEFAULT: &str = "{\n\t// There is no policy yet: everyone can reach everyone.\n\t\"acls\": [\n\t\t\
                       {\"action\": \"accept\", \"src\": [\"*\"], \"dst\": [\"*:*\"]},\n\t],\n}\n";

/// Tag of [`DEFAULT`] in `If-Match`. Source: `etagMatches` in headscale `hscontrol/api/v2/acl.go`.
const DEFAULT_TAG: &str = "ts-default";

/// An error response. Source: `ACLTestError` in tailscale `client/tailscale/acl.go`.
#[derive(Debug, Serialize)]
struct V2Error {
    #[serde(skip)]
    status: StatusCode,
    message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    data: Vec<FailedTests>,
}

/// Failed tests of one source.
#[derive(Debug, Serialize)]
struct FailedTests {
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
    errors: Vec<String>,
}

type V2Result = Result<Response<Body>, V2Error>;

impl V2Error {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            data: Vec::new(),
        }
    }

    /// The first error is the message, with its position. Errors of tests are grouped by the source of the test.
    fn of_policy(faults: &[Diagnostic]) -> Self {
        let (first, rest) = match faults.split_first() {
            Some((first, rest)) => (first.to_string(), rest),
            None => (String::new(), faults),
        };
        let mut data: Vec<FailedTests> = Vec::new();
        for fault in rest {
            let (user, error) = match fault.message.split_once(": ") {
                Some((user, error)) if !user.contains(' ') => (user, error.to_owned()),
                _ => ("", fault.to_string()),
            };
            match data.iter_mut().find(|known| known.user == user) {
                Some(known) => known.errors.push(error),
                None => data.push(FailedTests {
                    user: user.to_owned(),
                    errors: vec![error],
                }),
            }
        }
        Self {
            data,
            ..Self::new(StatusCode::BAD_REQUEST, first)
        }
    }

    fn response(&self) -> Response<Body> {
        body::json(self.status, self)
    }
}

impl From<PolicyError> for V2Error {
    fn from(unfit: PolicyError) -> Self {
        match unfit {
            PolicyError::Policy(faults) => Self::of_policy(&faults),
            PolicyError::Request(fault) => Self::new(fault.status(), fault.message()),
        }
    }
}

/// The response to an error other than those of a policy.
pub(super) fn refuse(fault: &ApiError) -> Response<Body> {
    V2Error::new(fault.status(), fault.message()).response()
}

impl ApiCall<'_> {
    /// `GET /api/v2/tailnet/{tailnet}/acl`.
    pub(crate) async fn v2_show_policy(&self, tailnet: &str) -> crate::admin::ApiResult {
        Ok(self.of_tailnet(tailnet, || show(self.admin, self.parts)))
    }

    /// `POST /api/v2/tailnet/{tailnet}/acl`.
    pub(crate) async fn v2_set_policy(&self, tailnet: &str) -> crate::admin::ApiResult {
        let NoFields {} = self.read_query()?;
        if let Err(refusal) = self.check_tailnet(tailnet) {
            return Ok(refusal.response());
        }
        let set = set(self, self.body).await;
        Ok(set.unwrap_or_else(|refusal| refusal.response()))
    }

    /// `POST /api/v2/tailnet/{tailnet}/acl/validate`.
    pub(crate) async fn v2_validate_policy(&self, tailnet: &str) -> crate::admin::ApiResult {
        Ok(self.of_tailnet(tailnet, || Ok(validate(self.admin, self.body))))
    }

    /// `POST /api/v2/tailnet/{tailnet}/acl/preview`.
    pub(crate) async fn v2_preview_policy(&self, tailnet: &str) -> crate::admin::ApiResult {
        Ok(self.of_tailnet(tailnet, || preview(self.admin, self.parts, self.body)))
    }

    fn check_tailnet(&self, tailnet: &str) -> Result<(), V2Error> {
        if tailnet == "-" || tailnet == self.admin.about.base_domain {
            return Ok(());
        }
        let message = "tailnet not found; use `-`";
        Err(V2Error::new(StatusCode::NOT_FOUND, message))
    }

    fn of_tailnet(&self, tailnet: &str, answer: impl FnOnce() -> V2Result) -> Response<Body> {
        let answer = self.check_tailnet(tailnet).and_then(|()| answer());
        answer.unwrap_or_else(|refusal| refusal.response())
    }
}

fn current(admin: &AdminContext) -> String {
    let snapshot = admin.engine.snapshot();
    let newest = snapshot.policies().last();
    newest.map_or_else(|| DEFAULT.to_owned(), |newest| newest.source.to_string())
}

/// ETag of a text: its SHA-256. gitops-pusher compares it with that of its file after formatting it.
fn tag_of(text: &str) -> String {
    HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
}

fn show(admin: &AdminContext, request: &Parts) -> V2Result {
    let text = current(admin);
    let details = parse_flag(&value(request.uri.query(), "details"));
    if wants_hujson(request) && details == Some(true) {
        let warnings = policy::texts(&admin.engine.snapshot().compiled().warnings());
        let details =
            json!({"acl": BASE64.encode(text.as_bytes()), "warnings": warnings, "errors": []});
        let response = body::json(StatusCode::OK, &details);
        return Ok(tagged(response, &text));
    }
    given(request, &text)
}

fn wants_hujson(request: &Parts) -> bool {
    let accepts = request.headers.get_all(ACCEPT).iter();
    let mut texts = accepts.filter_map(|value| value.to_str().ok());
    texts.any(|text| text.contains(HUJSON))
}

/// The policy as HuJSON or JSON, by the `Accept` header of the client.
fn given(request: &Parts, text: &str) -> V2Result {
    let response = match wants_hujson(request) {
        true => body::typed(StatusCode::OK, HUJSON, text.to_owned()),
        false => {
            let json = as_json(text).map_err(|fault| V2Error::of_policy(&[fault]))?;
            body::json(StatusCode::OK, &json)
        }
    };
    Ok(tagged(response, text))
}

fn tagged(mut response: Response<Body>, text: &str) -> Response<Body> {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", tag_of(text))) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

fn matches(wanted: &HeaderValue, text: &str) -> bool {
    let wanted = wanted.to_str().unwrap_or_default().trim();
    let wanted = wanted.trim_matches('"');
    wanted == "*" || wanted == tag_of(text) || wanted == DEFAULT_TAG && text == DEFAULT
}

async fn set(call: &ApiCall<'_>, body: &[u8]) -> V2Result {
    let (admin, request) = (call.admin, call.parts);
    let text = text_of(body)?;
    let _turn = admin.policy_lock.lock().await;
    let before = current(admin);
    if let Some(wanted) = request.headers.get(IF_MATCH)
        && !matches(wanted, &before)
    {
        let message = "precondition failed, invalid old hash";
        return Err(V2Error::new(StatusCode::PRECONDITION_FAILED, message));
    }
    let version = admin.apply_policy(call.by(), text).await?;
    given(request, &version.source)
}

fn text_of(body: &[u8]) -> Result<&str, V2Error> {
    let not_text = |_| V2Error::new(StatusCode::BAD_REQUEST, "the policy is not valid UTF-8");
    str::from_utf8(body).map_err(not_text)
}

fn read(text: &str) -> Result<Arc<Policy>, V2Error> {
    Ok(policy::parsed(text)?.policy)
}

/// Checks a policy; or, given a list, runs these tests against the current policy. Errors are returned with
/// status 200, by which tools distinguish them from a failed request.
fn validate(admin: &AdminContext, body: &[u8]) -> Response<Body> {
    let checked = text_of(body).and_then(|text| match text.trim_start().starts_with('[') {
        true => run_tests(admin, text),
        // Warnings would be errors for gitops-pusher.
        false => Ok(admin.check(text).map(drop)?),
    });
    match checked {
        Ok(()) => body::json(StatusCode::OK, &json!({})),
        Err(refusal) => body::json(StatusCode::OK, &refusal),
    }
}

fn run_tests(admin: &AdminContext, tests: &str) -> Result<(), V2Error> {
    let tests = read(&format!("{{\"tests\": {tests}}}"))?;
    let snapshot = admin.engine.snapshot();
    let applies = match snapshot.compiled().policy() {
        Some(policy) => policy.clone(),
        None => read(DEFAULT)?,
    };
    let compiled = snapshot.compile(&applies.with_tests_of(&tests).into());
    compiled
        .run_tests()
        .map_err(|faults| V2Error::of_policy(&faults))
}

/// Rules of a policy that concern a user (`?type=user`) or an address and port (`ipport`).
fn preview(admin: &AdminContext, request: &Parts, body: &[u8]) -> V2Result {
    let query = request.uri.query();
    let (kind, about) = (value(query, "type"), value(query, "previewFor"));
    let text = text_of(body)?;
    let compiled = admin.engine.snapshot().compile(&read(text)?);
    let rules = match kind.as_str() {
        "user" => compiled.rules_from_user(&about),
        "ipport" => {
            let at: SocketAddr = about.parse().map_err(|_| {
                let message =
                    "invalid previewFor: expected an address and a port, such as 100.64.0.1:22";
                V2Error::new(StatusCode::BAD_REQUEST, message)
            })?;
            compiled.rules_to(at.ip(), at.port())
        }
        _ => {
            let message = "invalid type: expected user or ipport";
            return Err(V2Error::new(StatusCode::BAD_REQUEST, message));
        }
    };
    let json = as_json(text).map_err(|fault| V2Error::of_policy(&[fault]))?;
    let shown: Vec<Value> = rules.iter().map(|cause| shown(&json, cause)).collect();
    let answer = json!({"matches": shown, "type": kind, "previewFor": about});
    Ok(body::json(StatusCode::OK, &answer))
}

/// A rule as in the policy. Source: `UserRuleMatch` in tailscale `client/tailscale/acl.go`.
fn shown(policy: &Value, cause: &Cause) -> Value {
    let rule = written(policy, &cause.rule).unwrap_or(&Value::Null);
    let texts = |name: &str| -> Vec<String> {
        let list = member(rule, name).and_then(Value::as_array);
        let texts = list.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    };
    let (mut ports, ip) = (texts("dst"), texts("ip"));
    if !ip.is_empty() {
        let with = |dst: &String| {
            ip.iter()
                .map(|ip| format!("{dst}:{ip}"))
                .collect::<Vec<_>>()
        };
        ports = ports.iter().flat_map(with).collect();
    }
    let mut shown = json!({"users": texts("src"), "ports": ports, "lineNumber": cause.line,
        "postures": texts("srcPosture")});
    let via = texts("via");
    if let Some(shown) = shown.as_object_mut().filter(|_| !via.is_empty()) {
        shown.insert("via".to_owned(), via.into());
    }
    shown
}

/// The rule with this name, such as `acls[2]`.
fn written<'a>(policy: &'a Value, name: &str) -> Option<&'a Value> {
    let (section, place) = name.strip_suffix(']')?.split_once('[')?;
    member(policy, section)?.get(place.parse::<usize>().ok()?)
}

/// Member of an object; names in policies are case-insensitive.
fn member<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let mut members = object.as_object()?.iter();
    let found = members.find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value)
}
