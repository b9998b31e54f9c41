//! The control protocol: what clients say inside the Noise session.

pub mod c2n;
mod c2n_reply;
pub mod client_reports;
pub mod coalesce;
mod convert;
pub mod full_map_slots;
pub mod machine;
mod map;
pub mod noise_stream;
mod register;
pub mod reports;
pub mod route_failover;
pub mod ssh_action;
pub mod ssh_checks;
pub mod ts2021;
mod unsupported;
