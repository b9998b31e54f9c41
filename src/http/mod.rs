//! The HTTP shell: connections in, requests decoded, answers out.

pub mod admin;
pub mod app;
pub mod numbers;
pub mod outbound;
pub mod pages;
pub mod policy;
#[cfg(feature = "portmap")]
pub mod soap;

pub use app::App;
pub mod wan;
