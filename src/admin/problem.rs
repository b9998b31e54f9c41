//! API errors in the format of grpc-gateway, which tools for Headscale 0.29 expect.

use hyper::{Response, StatusCode};

use crate::admin::later;
use crate::api::ErrorAnswer;
use crate::engine::EngineError;
use crate::net::body;
use crate::net::body::Body;
use hearth_core::policy::Diagnostic;
use hearth_core::state::command::Rejected;
use hearth_core::state::principal::Principal;
use hearth_core::state::scope::Scope;

/// Error code. Source: `google/rpc/code.proto` in googleapis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Used where Headscale has nothing more specific.
    Unknown = 2,
    /// The request is invalid.
    InvalidArgument = 3,
    /// A node did not reply in time.
    DeadlineExceeded = 4,
    /// The object does not exist.
    NotFound = 5,
    /// The object exists already.
    AlreadyExists = 6,
    /// The API key lacks a scope.
    PermissionDenied = 7,
    /// A limit was reached.
    ResourceExhausted = 8,
    /// The object is not in a state for this request.
    FailedPrecondition = 9,
    /// hearth does not support this.
    Unimplemented = 12,
    /// Server error.
    Internal = 13,
    /// Temporarily unavailable; retry later.
    Unavailable = 14,
    /// There is no valid API key.
    Unauthenticated = 16,
    /// The path exists with other methods. Not a gRPC code; grpc-gateway uses 12 for it.
    MethodNotAllowed = 405,
}

impl Code {
    /// HTTP status of the code.
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

/// Why an API request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    code: Code,
    message: String,
}

impl ApiError {
    /// An error with this code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// An invalid request.
    pub fn invalid(message: &str) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// The principal lacks a scope.
    pub fn lacks(principal: &Principal, scope: Scope) -> Self {
        let message = format!("{principal} lacks the scope {scope}");
        Self::new(Code::PermissionDenied, message)
    }

    /// The request is for the admin socket only.
    pub fn needs_socket(principal: &Principal) -> Self {
        let message = format!("{principal} may not do this; only the admin socket may");
        Self::new(Code::PermissionDenied, message)
    }

    /// An invalid policy, with one error per line.
    pub fn policy(faults: &[Diagnostic]) -> Self {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Self::invalid(&lines.join("\n"))
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// HTTP status.
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// The error as JSON.
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

    /// The error as a response.
    pub fn response(&self) -> Response<Body> {
        let response = body::json(self.code.status(), &self.answer());
        match self.code {
            Code::Unavailable => later(response, 5),
            _ => response,
        }
    }
}

impl From<Rejected> for ApiError {
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
            | Rejected::TooOften
            | Rejected::NoIds => Code::ResourceExhausted,
            Rejected::LoginDecided
            | Rejected::UserHasNodes { .. }
            | Rejected::WireGuardOnly
            | Rejected::PrefixesLost => Code::FailedPrecondition,
            _ => Code::InvalidArgument,
        };
        Self::new(code, rejected.to_string())
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Rejected(rejected) => rejected.into(),
            EngineError::Busy
            | EngineError::Unavailable(_)
            | EngineError::InDoubt(_)
            | EngineError::Unreadable(_)
            | EngineError::NoCopy(_)
            | EngineError::Stopped => Self::new(Code::Unavailable, error.to_string()),
        }
    }
}
