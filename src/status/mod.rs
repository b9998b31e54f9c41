//! Status that parts of the server publish for others to read.

pub mod addresses;
pub mod client_reports;
pub mod http_counters;
pub mod policy;
pub mod relay;
pub mod ssh_checks;
pub mod wan;
