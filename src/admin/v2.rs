//! The policy by the API of tailscale.com, as gitops-pusher and the Terraform provider use it:
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

use crate::admin::problem::Fault;
use crate::admin::v1::policy;
use crate::admin::v1::policy::Unfit;
use crate::admin::{AdminContext, Call};
use crate::net::body;
use crate::net::body::Body;
use crate::net::query::value;
use hearth_core::policy::{Cause, Diagnostic, Policy, as_json};

/// What all paths of this interface begin with.
pub(super) const ROOT: &str = "/api/v2/";

const HUJSON: &str = "application/hujson";

/// What is given where there is no policy. It means the same.
const DEFAULT: &str = "{\n\t// There is no policy yet: everyone may reach everyone.\n\t\"acls\": [\n\t\t\
                       {\"action\": \"accept\", \"src\": [\"*\"], \"dst\": [\"*:*\"]},\n\t],\n}\n";

/// What stands for [`DEFAULT`] in `If-Match`. Source: `etagMatches` in headscale `hscontrol/api/v2/acl.go`.
const DEFAULT_TAG: &str = "ts-default";

/// A refusal. Source: `ACLTestError` in tailscale `client/tailscale/acl.go`.
#[derive(Debug, Serialize)]
struct Refusal {
    #[serde(skip)]
    status: StatusCode,
    message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    data: Vec<Failed>,
}

/// What is wrong, by source of the test that says so.
#[derive(Debug, Serialize)]
struct Failed {
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
    errors: Vec<String>,
}

type Answer = Result<Response<Body>, Refusal>;

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            data: Vec::new(),
        }
    }

    /// The first fault is the message, with its place. Those of tests are grouped by the source of the test.
    fn of_policy(faults: &[Diagnostic]) -> Self {
        let (first, rest) = match faults.split_first() {
            Some((first, rest)) => (first.to_string(), rest),
            None => (String::new(), faults),
        };
        let mut data: Vec<Failed> = Vec::new();
        for fault in rest {
            let (user, error) = match fault.message.split_once(": ") {
                Some((user, error)) if !user.contains(' ') => (user, error.to_owned()),
                _ => ("", fault.to_string()),
            };
            match data.iter_mut().find(|known| known.user == user) {
                Some(known) => known.errors.push(error),
                None => data.push(Failed {
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

impl From<Unfit> for Refusal {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Policy(faults) => Self::of_policy(&faults),
            Unfit::Request(fault) => Self::new(fault.status(), fault.message()),
        }
    }
}

/// A refusal of anything else than a policy.
pub(super) fn refuse(fault: &Fault) -> Response<Body> {
    Refusal::new(fault.status(), fault.message()).response()
}

impl Call<'_> {
    /// `GET /api/v2/tailnet/{tailnet}/acl`.
    pub(crate) async fn v2_show_policy(&self, tailnet: &str) -> crate::admin::Answer {
        Ok(self.of_tailnet(tailnet, || show(self.admin, self.parts)))
    }

    /// `POST /api/v2/tailnet/{tailnet}/acl`.
    pub(crate) async fn v2_set_policy(&self, tailnet: &str) -> crate::admin::Answer {
        if let Err(refusal) = self.check_tailnet(tailnet) {
            return Ok(refusal.response());
        }
        let set = set(self, self.body).await;
        Ok(set.unwrap_or_else(|refusal| refusal.response()))
    }

    /// `POST /api/v2/tailnet/{tailnet}/acl/validate`.
    pub(crate) async fn v2_validate_policy(&self, tailnet: &str) -> crate::admin::Answer {
        Ok(self.of_tailnet(tailnet, || Ok(validate(self.admin, self.body))))
    }

    /// `POST /api/v2/tailnet/{tailnet}/acl/preview`.
    pub(crate) async fn v2_preview_policy(&self, tailnet: &str) -> crate::admin::Answer {
        Ok(self.of_tailnet(tailnet, || preview(self.admin, self.parts, self.body)))
    }

    fn check_tailnet(&self, tailnet: &str) -> Result<(), Refusal> {
        if tailnet == "-" || tailnet == self.admin.about.base_domain {
            return Ok(());
        }
        let message = "tailnet not found: use `-`";
        Err(Refusal::new(StatusCode::NOT_FOUND, message))
    }

    fn of_tailnet(&self, tailnet: &str, answer: impl FnOnce() -> Answer) -> Response<Body> {
        let answer = self.check_tailnet(tailnet).and_then(|()| answer());
        answer.unwrap_or_else(|refusal| refusal.response())
    }
}

fn current(admin: &AdminContext) -> String {
    let snapshot = admin.engine.snapshot();
    let newest = snapshot.policies().last();
    newest.map_or_else(|| DEFAULT.to_owned(), |newest| newest.source.to_string())
}

/// The tag of a text: its SHA-256. gitops-pusher compares it with that of its file after formatting it.
fn tag_of(text: &str) -> String {
    HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
}

fn show(admin: &AdminContext, request: &Parts) -> Answer {
    let text = current(admin);
    let details = value(request.uri.query(), "details");
    if wants_hujson(request) && matches!(details.as_str(), "1" | "true") {
        let details = json!({"acl": BASE64.encode(text.as_bytes()), "warnings": [], "errors": []});
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

/// A policy as it was written, or as JSON: what the client takes.
fn given(request: &Parts, text: &str) -> Answer {
    let response = match wants_hujson(request) {
        true => body::typed(StatusCode::OK, HUJSON, text.to_owned()),
        false => {
            let json = as_json(text).map_err(|fault| Refusal::of_policy(&[fault]))?;
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

async fn set(call: &Call<'_>, body: &[u8]) -> Answer {
    let (admin, request) = (call.admin, call.parts);
    let text = text_of(body)?;
    let _turn = admin.policy_turn.lock().await;
    let before = current(admin);
    if let Some(wanted) = request.headers.get(IF_MATCH)
        && !matches(wanted, &before)
    {
        let message = "precondition failed, invalid old hash";
        return Err(Refusal::new(StatusCode::PRECONDITION_FAILED, message));
    }
    let version = admin.take_over(call.by(), text).await?;
    given(request, &version.source)
}

fn text_of(body: &[u8]) -> Result<&str, Refusal> {
    let not_text = |_| Refusal::new(StatusCode::BAD_REQUEST, "the policy is not text in UTF-8");
    str::from_utf8(body).map_err(not_text)
}

fn read(text: &str) -> Result<Arc<Policy>, Refusal> {
    Ok(policy::parsed(text)?.policy)
}

/// Whether a policy could be set; or, given a list, whether these tests hold of the one that applies. What is
/// wrong comes with 200: that is how tools tell it from a failed request.
fn validate(admin: &AdminContext, body: &[u8]) -> Response<Body> {
    let checked = text_of(body).and_then(|text| match text.trim_start().starts_with('[') {
        true => run_tests(admin, text),
        false => Ok(admin.check(text)?),
    });
    match checked {
        Ok(()) => body::json(StatusCode::OK, &json!({})),
        Err(refusal) => body::json(StatusCode::OK, &refusal),
    }
}

fn run_tests(admin: &AdminContext, tests: &str) -> Result<(), Refusal> {
    let tests = read(&format!("{{\"tests\": {tests}}}"))?;
    let snapshot = admin.engine.snapshot();
    let applies = match snapshot.compiled().policy() {
        Some(policy) => policy.clone(),
        None => read(DEFAULT)?,
    };
    let compiled = snapshot.compile(&applies.with_tests_of(&tests).into());
    compiled
        .run_tests()
        .map_err(|faults| Refusal::of_policy(&faults))
}

/// The rules of a policy that are about a user (`?type=user`) or an address and port (`ipport`).
fn preview(admin: &AdminContext, request: &Parts, body: &[u8]) -> Answer {
    let query = request.uri.query();
    let (kind, about) = (value(query, "type"), value(query, "previewFor"));
    let text = text_of(body)?;
    let compiled = admin.engine.snapshot().compile(&read(text)?);
    let rules = match kind.as_str() {
        "user" => compiled.rules_from_user(&about),
        "ipport" => {
            let at: SocketAddr = about.parse().map_err(|_| {
                let message = "previewFor: expected an address and a port, as in 100.64.0.1:22";
                Refusal::new(StatusCode::BAD_REQUEST, message)
            })?;
            compiled.rules_to(at.ip(), at.port())
        }
        _ => {
            let message = "type: expected user or ipport";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
        }
    };
    let json = as_json(text).map_err(|fault| Refusal::of_policy(&[fault]))?;
    let shown: Vec<Value> = rules.iter().map(|cause| shown(&json, cause)).collect();
    let answer = json!({"matches": shown, "type": kind, "previewFor": about});
    Ok(body::json(StatusCode::OK, &answer))
}

/// A rule as it is written. Source: `UserRuleMatch` in tailscale `client/tailscale/acl.go`.
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

/// The rule that is called so, as in `acls[2]`.
fn written<'a>(policy: &'a Value, name: &str) -> Option<&'a Value> {
    let (section, place) = name.strip_suffix(']')?.split_once('[')?;
    member(policy, section)?.get(place.parse::<usize>().ok()?)
}

/// A member of an object; policies are not particular about capital letters.
fn member<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let mut members = object.as_object()?.iter();
    let found = members.find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value)
}
