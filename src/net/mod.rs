//! From bytes to requests: listeners, TLS, HTTP/1, HTTP/2, WebSocket, bodies. Knows no path.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod body;
pub mod body_budget;
pub mod connection;
pub mod gate;
mod handshake_limit;
pub mod http1;
pub mod http2;
mod inline_executor;
pub mod json_size;
pub mod limits;
pub mod listener;
pub mod params;
pub mod proxies;
pub mod proxy_protocol;
pub mod query;
pub mod revocation;
pub mod stream;
pub mod tls;
pub mod upgrade;
pub mod websocket;
