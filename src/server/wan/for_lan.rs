//! The public IPv4 address for STUN requests from the LAN (`derp.stun_lan_as_wan` without `derp.ipv4`).

use std::sync::Arc;

use hearth_derp::udp::AddressForLan;
use tokio::sync::watch;

use crate::shutdown::Shutdown;
use hearth_core::wan::Report;

/// Has the STUN responder answer private sources with the public IPv4 address of the newest report, until hearth shuts down.
pub(in crate::server) async fn answer_lan(
    address: AddressForLan,
    mut reports: watch::Receiver<Arc<Report>>,
    shutdown: Shutdown,
) {
    loop {
        address.set(reports.borrow_and_update().public.v4);
        tokio::select! {
            () = shutdown.wait() => return,
            changed = reports.changed() => if changed.is_err() { return },
        }
    }
}
