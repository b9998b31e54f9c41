//! The path and query of a request, taken apart.

use hyper::Uri;

use crate::admin::ROOT;
use crate::net::query::{pairs, unescaped};

/// The parts of a path below the interface's root, and its query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    parts: Vec<String>,
    query: Vec<(String, String)>,
}

impl Target {
    /// Takes a URI apart; `None` when its escapes are not UTF-8. A slash at the end adds an empty
    /// part: `DELETE /api/v1/apikey/?id=1` is a request that there is.
    pub fn of(uri: &Uri) -> Option<Self> {
        let parts = uri.path().strip_prefix(ROOT)?.split('/');
        let parts = parts
            .map(|part| unescaped(part, false))
            .collect::<Option<_>>()?;
        let query = pairs(uri.query().unwrap_or_default())?;
        Some(Self { parts, query })
    }

    /// The parts of the path, unescaped.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(String::as_str)
    }

    /// The value of a key of the query; empty when it is not there.
    pub fn query(&self, key: &str) -> &str {
        let pair = self.query.iter().find(|(name, _)| name == key);
        pair.map_or("", |(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str) -> Option<Target> {
        Target::of(&uri.parse().unwrap())
    }

    #[test]
    fn paths_and_queries_are_unescaped_after_they_are_split() {
        let target = target("/api/v1/user/1/rename/a%2Fb+c?name=a%26b+c&flag&x=").unwrap();
        let parts: Vec<&str> = target.parts().collect();
        assert_eq!(parts, ["user", "1", "rename", "a/b+c"]);
        assert_eq!(target.query("name"), "a&b c");
        assert_eq!((target.query("flag"), target.query("none")), ("", ""));
    }

    #[test]
    fn escapes_that_are_none_are_refused() {
        for uri in [
            "/api/v1/%",
            "/api/v1/%4",
            "/api/v1/%+1",
            "/api/v1/%ff",
            "/api/v1/a?b=%zz",
        ] {
            assert_eq!(target(uri), None, "{uri}");
        }
    }
}
