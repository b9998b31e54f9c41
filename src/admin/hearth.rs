//! What hearth's own API has beside Headscale's.

mod audit;
mod c2n;
mod dns;
mod doctor;
mod policy_why;
mod status;
mod wan;
mod wireguard;
