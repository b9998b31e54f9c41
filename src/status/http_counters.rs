//! Request counters by route and status class.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};

use hyper::StatusCode;

/// Status classes, 1xx to 5xx.
const CLASSES: usize = 5;

/// One counter per route and status class; 32 bits, wrapping.
#[derive(Debug)]
pub struct HttpCounters {
    routes: Vec<RouteCounters>,
}

#[derive(Debug)]
struct RouteCounters {
    method: &'static str,
    path: &'static str,
    counts: [AtomicU32; CLASSES],
}

impl HttpCounters {
    /// Counters for these routes, given by method and path.
    pub fn new(routes: impl Iterator<Item = (&'static str, &'static str)>) -> Self {
        let counted = |(method, path)| RouteCounters {
            method,
            path,
            counts: Default::default(),
        };
        Self {
            routes: routes.map(counted).collect(),
        }
    }

    /// Counts one response of the route at this index.
    pub fn count(&self, route: usize, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        let counted = self.routes.get(route);
        if let Some(count) = counted.and_then(|counted| counted.counts.get(class)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Appends the metric in the Prometheus text format; routes without requests are left out.
    pub fn prometheus(&self, text: &mut String) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "# HELP hearth_http_requests_total Requests by route and status"
        );
        let _ = writeln!(text, "# TYPE hearth_http_requests_total counter");
        for route in &self.routes {
            for (class, count) in (1..).zip(&route.counts) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let (method, path) = (route.method, route.path);
                    let _ = writeln!(
                        text,
                        "hearth_http_requests_total{{method=\"{method}\",route=\"{path}\",status=\"{class}xx\"}} {count}",
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_routes_that_were_asked_for_are_shown() {
        let counters = HttpCounters::new([("GET", "/key"), ("POST", "/verify")].into_iter());
        counters.count(0, StatusCode::OK);
        counters.count(0, StatusCode::NO_CONTENT);
        counters.count(0, StatusCode::BAD_REQUEST);
        counters.count(9, StatusCode::OK);
        let mut text = String::new();
        counters.prometheus(&mut text);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                r#"hearth_http_requests_total{method="GET",route="/key",status="2xx"} 2"#,
                r#"hearth_http_requests_total{method="GET",route="/key",status="4xx"} 1"#,
            ]
        );
    }
}
