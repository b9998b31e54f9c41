//! `/bootstrap-dns`: addresses of this server by name, for clients without working DNS.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::header::{CONNECTION, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use crate::config::{Config, Host};
use crate::net::body;
use crate::net::body::Body;
use crate::shutdown::Shutdown;

/// Path. Source: tailscale `net/dnsfallback/dnsfallback.go`.
pub const PATH: &str = "/bootstrap-dns";

/// Lookup interval. Source: `refreshBootstrapDNSLoop` in tailscale
/// `cmd/derper/bootstrap_dns.go`.
const REFRESH: Duration = Duration::from_secs(10 * 60);

/// Timeout of one lookup. Source: `refreshTimeout`, the same.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Most addresses of one name.
const MAX_ADDRESSES: usize = 16;

type HostAddresses = BTreeMap<String, Vec<IpAddr>>;

/// Bootstrap DNS records of this server. Clones share them.
#[derive(Clone)]
pub struct BootstrapDns {
    fixed: Arc<HostAddresses>,
    names: Arc<[String]>,
    known: Arc<Mutex<HostAddresses>>,
    server: Option<String>,
    /// Addresses that override DNS; empty to use DNS.
    addresses: Arc<Mutex<Vec<IpAddr>>>,
}

impl BootstrapDns {
    /// The names in the configuration: those of the server and of the relay.
    pub fn new(config: &Config) -> Self {
        let server = match config.server_url.host() {
            Host::Name(name) => Some(name.to_string()),
            Host::Address(_) => None,
        };
        let derp = &config.derp;
        let relay = derp.host_name.clone();
        let relay = relay.filter(|name| name.parse::<IpAddr>().is_err());
        let addresses = [derp.ipv4.map(IpAddr::from), derp.ipv6.map(IpAddr::from)];
        let addresses: Vec<IpAddr> = addresses.into_iter().flatten().collect();
        let mut fixed = HostAddresses::new();
        // The addresses in the configuration are those of the relay, which is the same host unless it has
        // another name.
        if let Some(name) = relay
            .as_ref()
            .or(server.as_ref())
            .filter(|_| !addresses.is_empty())
        {
            fixed.insert(name.clone(), addresses);
        }
        let names: BTreeSet<String> = server.iter().cloned().chain(relay).collect();
        let names = names.into_iter().filter(|name| !fixed.contains_key(name));
        Self {
            names: names.collect(),
            known: Arc::new(Mutex::new(fixed.clone())),
            fixed: Arc::new(fixed),
            server,
            addresses: Arc::default(),
        }
    }

    /// Sets the addresses of the server, which DNS may not have yet.
    pub fn set_addresses(&self, addresses: &[IpAddr]) {
        addresses.clone_into(
            &mut self
                .addresses
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        self.insert_server(&mut self.lock());
    }

    fn insert_server(&self, known: &mut HostAddresses) {
        let addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let server = self.server.as_ref().filter(|_| !addresses.is_empty());
        if let Some(server) = server.filter(|name| !self.fixed.contains_key(*name)) {
            known.insert(server.clone(), addresses.clone());
        }
    }

    /// Looks up the names every ten minutes, until the server stops.
    pub async fn refresh(self, shutdown: Shutdown) {
        while !self.names.is_empty() {
            let mut known = (*self.fixed).clone();
            for name in self.names.iter() {
                let lookup = tokio::net::lookup_host((name.as_str(), 0));
                let found = tokio::select! {
                    () = shutdown.wait() => return,
                    found = tokio::time::timeout(TIMEOUT, lookup) => found,
                };
                let addresses: Vec<IpAddr> = match found {
                    Ok(Ok(found)) => found.map(|found| found.ip()).take(MAX_ADDRESSES).collect(),
                    // On failure the previous addresses stay.
                    _ => self.lock().get(name).cloned().unwrap_or_default(),
                };
                if !addresses.is_empty() {
                    known.insert(name.clone(), addresses);
                }
            }
            self.insert_server(&mut known);
            *self.lock() = known;
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep(REFRESH) => {}
            }
        }
    }

    /// `GET /bootstrap-dns?q=<name>`: the record of that name if it is ours, or else all records.
    pub fn answer(&self, request: &Parts) -> Response<Body> {
        let query = request.uri.query().unwrap_or_default();
        let asked = query.split('&').find_map(|pair| pair.strip_prefix("q="));
        let known = self.lock();
        let one = asked.and_then(|name| known.get_key_value(name));
        let mut response = match one {
            Some((name, addresses)) => {
                body::json(StatusCode::OK, &BTreeMap::from([(name, addresses)]))
            }
            None => body::json(StatusCode::OK, &*known),
        };
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
        response
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HostAddresses> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, Surroundings};
    use http_body_util::BodyExt;
    use hyper::Request;

    async fn ask(dns: &BootstrapDns, uri: &str) -> String {
        let (parts, ()) = Request::builder().uri(uri).body(()).unwrap().into_parts();
        let answer = dns.answer(&parts);
        assert_eq!(answer.headers()["connection"], "close");
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn own_names_are_served_and_no_others() {
        let overrides = Overrides {
            server_url: "https://localhost".parse().ok(),
            ..Overrides::default()
        };
        let mut config = Config::load(overrides, &Surroundings::default());
        config.derp.host_name = Some("relay.example".into());
        config.derp.ipv4 = Some([203, 0, 113, 1].into());
        let dns = BootstrapDns::new(&config);
        let relay = r#"{"relay.example":["203.0.113.1"]}"#;
        assert_eq!(ask(&dns, "/bootstrap-dns").await, relay);
        let shutdown = Shutdown::new();
        let refreshing = dns.clone().refresh(shutdown.clone());
        let _ = tokio::time::timeout(Duration::from_secs(5), refreshing).await;
        assert_eq!(ask(&dns, "/bootstrap-dns?x=y&q=relay.example").await, relay);
        let all = ask(&dns, "/bootstrap-dns?q=www.example.org").await;
        assert!(
            all.contains("localhost") && all.contains("relay.example"),
            "{all}"
        );
    }
}
