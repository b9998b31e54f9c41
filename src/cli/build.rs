//! What this build of the program is: its version and the features it lacks.

use std::sync::OnceLock;

/// Version of hearth.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Cargo features that this program was built without.
pub const LEFT_OUT: &[&str] = &[
    #[cfg(not(feature = "https-client"))]
    "https-client",
    #[cfg(not(feature = "policy-tools"))]
    "policy-tools",
    #[cfg(not(feature = "portmap"))]
    "portmap",
    #[cfg(not(feature = "standalone-relay"))]
    "standalone-relay",
];

/// Version of this program, with the features it was built without.
pub fn version() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| match LEFT_OUT {
        [] => VERSION.to_owned(),
        parts => format!("{VERSION} (built without {})", parts.join(", ")),
    })
}
