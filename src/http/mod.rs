//! The HTTP shell: connections in, requests decoded, answers out.

pub mod admin;
pub mod app;
pub mod bootstrap;
pub mod contact;
pub mod derp;
pub mod machine;
pub mod numbers;
pub mod outbound;
pub mod pace;
pub mod pages;
pub mod policy;
pub mod public;
pub mod relay;
pub mod routers;
#[cfg(feature = "portmap")]
pub mod soap;
#[cfg(feature = "standalone-relay")]
pub mod standalone;
pub mod ts2021;
pub mod turns;

pub use app::App;
pub mod wan;
