//! The commands: a file for each, named like it.

pub mod apikeys;
pub mod audit;
pub mod backup;
pub mod board;
pub mod check;
pub mod completion;
pub mod derp;
pub mod dns;
pub mod doctor;
pub mod health;
pub mod help;
pub mod invite;
pub mod nodes;
pub mod pending;
pub mod policy;
#[cfg(feature = "policy-tools")]
pub mod policy_eval;
pub mod preauthkeys;
pub mod repair;
pub mod restore;
pub mod serve;
pub mod ssh;
pub mod status;
pub mod users;
pub mod version;
pub mod wan;
