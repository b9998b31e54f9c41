//! API handlers of hearth's own, without a counterpart in Headscale.

mod audit;
mod backup;
mod c2n;
mod dns;
mod doctor;
mod policy_why;
mod status;
mod wan;
mod wireguard;
