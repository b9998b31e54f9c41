//! Rate limits for registrations of machines without a node, which may be guessing keys. Each machine and each source has a
//! share, so that none keeps others out; machine keys cost nothing, so those of one source share its rate.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hearth_core::keys::MachineKey;
use hearth_shares::{Buckets, Source};

/// Registrations of one machine: 8 at once, then one in 10 s.
const MACHINE: (u32, Duration) = (8, Duration::from_secs(10));
/// Those of one IPv4 address or IPv6 /64: 60 at once, then one a second.
const NARROW: (u32, Duration) = (60, Duration::from_secs(1));
/// Those of one IPv6 /48: 240 at once, then four a second.
const WIDE: (u32, Duration) = (240, Duration::from_millis(250));
/// Most machines and sources that are remembered; beyond that, the ones that have used the least are forgotten.
const SHARES_MAX: usize = 256;

/// Registrations of newcomers, by machine and source.
#[derive(Debug)]
pub struct Newcomers(Mutex<Shares>);

#[derive(Debug)]
struct Shares {
    machines: Buckets<MachineKey>,
    narrow: Buckets<IpAddr>,
    wide: Buckets<IpAddr>,
}

impl Default for Newcomers {
    fn default() -> Self {
        Self(Mutex::new(Shares {
            machines: Buckets::new(MACHINE.0, MACHINE.1, SHARES_MAX),
            narrow: Buckets::new(NARROW.0, NARROW.1, SHARES_MAX),
            wide: Buckets::new(WIDE.0, WIDE.1, SHARES_MAX),
        }))
    }
}

impl Newcomers {
    /// Takes one registration from the shares of a machine at `address`. Returns false if one of them is used up.
    pub fn take(&self, machine: MachineKey, address: IpAddr, now: Duration) -> bool {
        let source = Source::of(address);
        // Buckets are valid at any moment, so a panic elsewhere cannot spoil them.
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What is refused is charged to nobody.
        let may = shares.narrow.has(&source.narrow(), now)
            && shares.wide.has(&source.wide(), now)
            && shares.machines.has(&machine, now);
        may && shares.narrow.take_or_forget(source.narrow(), now)
            && shares.wide.take_or_forget(source.wide(), now)
            && shares.machines.take_or_forget(machine, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(newcomers: &Newcomers, address: &str, machine: impl Fn(u16) -> u16) -> usize {
        let address = address.parse().unwrap();
        let tries = (0..1000).filter(|number| {
            let [high, low] = machine(*number).to_be_bytes();
            let mut key = [0; 32];
            (key[0], key[1]) = (high, low);
            newcomers.take(MachineKey::from_bytes(key), address, Duration::ZERO)
        });
        tries.count()
    }

    #[test]
    fn a_strangers_flood_keeps_no_other_newcomer_out() {
        let newcomers = Newcomers::default();
        assert_eq!(count(&newcomers, "192.0.2.1", |number| number), 60);
        assert_eq!(count(&newcomers, "192.0.2.2", |_| 2000), 8);
        for host in 3..33 {
            let address = format!("192.0.2.{host}");
            assert!(count(&newcomers, &address, |_| 1000 + host) > 0);
        }
    }

    #[test]
    fn many_machines_at_many_addresses_keep_no_newcomer_out() {
        let newcomers = Newcomers::default();
        for host in 0..40 {
            let address = format!("192.0.2.{host}");
            count(&newcomers, &address, |number| host * 100 + number / 8);
        }
        for host in 0..300 {
            let address = format!("2001:db8:{host:x}::1");
            count(&newcomers, &address, |number| host * 200 + number);
        }
        assert!(count(&newcomers, "198.51.100.1", |_| 65_535) > 0);
    }

    #[test]
    fn the_networks_of_one_site_share_a_rate() {
        let newcomers = Newcomers::default();
        let site = (0..100).map(|network| format!("2001:db8:1:{network:x}::1"));
        let taken: usize = site
            .map(|address| count(&newcomers, &address, |number| number))
            .sum();
        assert_eq!(taken, 240);
        assert!(count(&newcomers, "2001:db8:2::1", |number| 2000 + number) > 0);
    }
}
