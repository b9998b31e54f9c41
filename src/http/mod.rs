//! The HTTP shell: connections in, requests decoded, answers out.

pub mod admin;
pub mod app;
pub mod bootstrap;
pub mod derp;
pub mod numbers;
pub mod outbound;
pub mod pages;
pub mod policy;
pub mod public;
pub mod relay;
#[cfg(feature = "portmap")]
pub mod soap;
#[cfg(feature = "standalone-relay")]
pub mod standalone;

pub use app::App;
pub mod wan;
