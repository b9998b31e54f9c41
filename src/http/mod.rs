//! The HTTP shell: connections in, requests decoded, answers out.

pub mod admin;
pub mod app;
pub mod bodies;
pub mod body;
pub mod bootstrap;
pub mod connection;
pub mod contact;
pub mod derp;
mod early;
pub mod front;
pub mod limits;
pub mod listener;
pub mod machine;
pub mod numbers;
pub mod outbound;
pub mod pace;
pub mod pages;
pub mod policy;
pub mod public;
pub mod query;
pub mod relay;
mod requests;
pub mod routers;
#[cfg(feature = "portmap")]
pub mod soap;
#[cfg(feature = "standalone-relay")]
pub mod standalone;
pub mod stream;
pub mod ts2021;
pub mod turns;
pub mod websocket;

pub use app::App;
pub mod wan;
