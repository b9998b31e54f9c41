//! The HTTP shell: connections in, requests decoded, answers out.

pub mod app;

pub use app::App;
