//! Refusals in the form of gRPC's gateway, which is what tools made for Headscale 0.29 expect.

use hyper::{Response, StatusCode};

use crate::admin::later;
use crate::api::ErrorAnswer;
use crate::engine::EngineError;
use crate::net::body;
use crate::net::body::Body;
use hearth_core::policy::Diagnostic;
use hearth_core::state::command::Rejected;

/// The kind of a refusal. Source: `google/rpc/code.proto` in googleapis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Headscale says nothing better.
    Unknown = 2,
    /// The request makes no sense.
    InvalidArgument = 3,
    /// Somebody else gave no answer in time.
    DeadlineExceeded = 4,
    /// What the request names is not there.
    NotFound = 5,
    /// What the request makes is there already.
    AlreadyExists = 6,
    /// The API key lacks a scope.
    PermissionDenied = 7,
    /// A limit is reached.
    ResourceExhausted = 8,
    /// What the request names is in no state for it.
    FailedPrecondition = 9,
    /// hearth has no such thing.
    Unimplemented = 12,
    /// A fault of the server.
    Internal = 13,
    /// Try again later.
    Unavailable = 14,
    /// There is no valid API key.
    Unauthenticated = 16,
    /// The path exists with other methods. Not a code of gRPC, whose gateway says 12 there.
    MethodNotAllowed = 405,
}

impl Code {
    /// The status of HTTP that goes with it.
    /// Source: `HTTPStatusFromCode` in grpc-gateway `runtime/errors.go`.
    fn status(self) -> StatusCode {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition => StatusCode::BAD_REQUEST,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists => StatusCode::CONFLICT,
            Self::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Internal | Self::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    code: Code,
    message: String,
}

impl Fault {
    /// A refusal of this kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// A request that makes no sense.
    pub fn invalid(message: &str) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// A policy with faults, one a line.
    pub fn policy(faults: &[Diagnostic]) -> Self {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Self::invalid(&lines.join("\n"))
    }

    /// What happened.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The status of HTTP.
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// The body of the answer.
    pub fn answer(&self) -> ErrorAnswer {
        ErrorAnswer {
            code: match self.code {
                Code::MethodNotAllowed => Code::Unimplemented as u32,
                code => code as u32,
            },
            message: self.message.clone(),
            details: Vec::new(),
        }
    }

    /// The whole answer.
    pub fn response(&self) -> Response<Body> {
        let response = body::json(self.code.status(), &self.answer());
        match self.code {
            Code::Unavailable => later(response, 5),
            _ => response,
        }
    }
}

impl From<Rejected> for Fault {
    fn from(rejected: Rejected) -> Self {
        let code = match &rejected {
            Rejected::NoSuchUser
            | Rejected::NoSuchNode
            | Rejected::NoSuchKey
            | Rejected::NoSuchDnsRecord
            | Rejected::NoSuchPolicy
            | Rejected::NoSuchLogin => Code::NotFound,
            Rejected::UserNameTaken(_)
            | Rejected::AddressTaken(..)
            | Rejected::DnsRecordExists(_)
            | Rejected::KeyTaken(_)
            | Rejected::MachineHasNode(_) => Code::AlreadyExists,
            Rejected::TooManyNodes { .. }
            | Rejected::NoAddress
            | Rejected::TooMany { .. }
            | Rejected::NoIds => Code::ResourceExhausted,
            Rejected::LoginDecided | Rejected::UserHasNodes { .. } | Rejected::WireGuardOnly => {
                Code::FailedPrecondition
            }
            _ => Code::InvalidArgument,
        };
        Self::new(code, rejected.to_string())
    }
}

impl From<EngineError> for Fault {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Rejected(rejected) => rejected.into(),
            EngineError::Busy | EngineError::Unavailable | EngineError::Stopped => {
                Self::new(Code::Unavailable, error.to_string())
            }
        }
    }
}
