//! The state of the public addresses, and the conclusions from it. Does no I/O.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::host::ServerHost;
use crate::config::Host;
use crate::config::wan::{Publish, WanSettings};
use hearth_core::clock::Timestamp;
use hearth_core::wan::choose::WanInterface;
use hearth_core::wan::mapping::{Mapping, Protocol};
use hearth_core::wan::publish::{Advertised, ConfiguredAddresses, advertise, advertised_public};
use hearth_core::wan::report::Lookup;
use hearth_core::wan::track::Debounce;
use hearth_core::wan::{AddressSource, Addresses, NoticedBy, Report};

/// The state of the public addresses.
pub(super) struct WanState {
    settings: WanSettings,
    configured: ConfiguredAddresses,
    pub(super) host: ServerHost,
    pub(super) wan: WanInterface,
    pub(super) lan: Option<Ipv4Addr>,
    pub(super) stun: Addresses,
    pub(super) mapping: Mapping,
    pub(super) lookup: Lookup,
    debounce: Debounce,
    source: AddressSource,
    since: Option<Timestamp>,
    is_updated: bool,
    /// The addresses of the interface at the last requested refresh.
    refreshed: Option<Addresses>,
}

/// The result of an update.
pub(super) struct Outcome {
    /// The addresses to advertise.
    pub(super) advertised: Advertised,
    /// Whether the public addresses have changed.
    pub(super) is_change: bool,
    /// The next update is due after this time even without news.
    pub(super) again_in: Option<Duration>,
}

impl WanState {
    /// Only the configuration and the remembered host are known.
    pub(super) fn new(
        settings: WanSettings,
        configured: ConfiguredAddresses,
        host: ServerHost,
    ) -> Self {
        let mapping = Mapping {
            is_wanted: settings.port_mapping,
            ..Mapping::default()
        };
        Self {
            settings,
            configured,
            host,
            wan: WanInterface::default(),
            lan: None,
            stun: Addresses::default(),
            mapping,
            lookup: Lookup::None,
            debounce: Debounce::default(),
            source: AddressSource::None,
            since: None,
            is_updated: false,
            refreshed: None,
        }
    }

    /// The host of `server_url` is this address now.
    pub(super) fn moved_to(&mut self, host: IpAddr, at: Timestamp) {
        self.configured.host = Some(host);
        self.host.moved_to(&Host::Address(host), at);
    }

    /// Updates the public and advertised addresses. `mono` and `wall` are the time.
    pub(super) fn update(&mut self, mono: Duration, wall: Timestamp) -> Outcome {
        let set = Addresses {
            v4: self.settings.ipv4,
            v6: self.settings.ipv6,
        };
        let sources = [
            (AddressSource::Configuration, set),
            (AddressSource::Interface, self.of_interface()),
            (AddressSource::Mapping, self.mapped()),
            (AddressSource::Stun, self.stun.public()),
        ];
        let found = sources
            .iter()
            .fold(Addresses::default(), |found, (_, more)| found.or(*more));
        let step = self.debounce.observe(found, mono);
        let public = self.debounce.current();
        if step.is_change {
            // Only IPv4 has several possible sources.
            let origin = sources.iter().find(|(_, source)| match public.v4 {
                Some(_) => source.v4 == public.v4,
                None => source.v6.is_some() && source.v6 == public.v6,
            });
            self.source = origin.map_or(AddressSource::None, |(source, _)| *source);
            self.since = self.is_updated.then_some(wall);
        }
        self.is_updated = true;
        let here: Vec<IpAddr> = (self.wan.all.iter().copied())
            .chain(public.iter())
            .collect();
        match (&self.lookup, self.configured.host) {
            (Lookup::Found(found), _) => self.host.resolved(found, &here),
            (_, Some(host)) => self.host.resolved(&[host], &here),
            _ => {}
        }
        if step.is_change {
            self.host.remember(public.iter());
        }
        Outcome {
            advertised: self.advertised(),
            is_change: step.is_change,
            again_in: step.again_in,
        }
    }

    /// Whether the addresses have changed since the last call.
    pub(super) fn refresh(&mut self) -> bool {
        let before = self.refreshed;
        // A brief loss is not a change for a dynamic DNS service.
        let now = self.wan.addresses.or(before.unwrap_or_default());
        self.refreshed = Some(now);
        before != Some(now)
    }

    /// The report for people and programs.
    pub(super) fn report(&self, noticed_by: NoticedBy) -> Report {
        Report {
            interface: self.wan.interface.clone(),
            own: self.wan.addresses,
            public: self.debounce.current(),
            reported: self.mapped().or(self.stun),
            public_source: self.source,
            lan: self.lan,
            has_route: self.wan.has_route,
            is_published: self.is_published(),
            advertised: self.advertised().server,
            since: self.since,
            noticed_by,
            lookup: self.lookup.clone(),
            mapping: self.mapping.clone(),
            moved: self.host.moved(),
        }
    }

    /// The public addresses of the WAN interface. Of several IPv6 addresses the current one is kept, regardless of
    /// the order of the kernel.
    fn of_interface(&self) -> Addresses {
        let found = self.wan.addresses.public();
        let current = self.debounce.current().v6;
        let kept = current.filter(|current| self.wan.all.contains(&IpAddr::V6(*current)));
        Addresses {
            v6: found.v6.map(|v6| kept.unwrap_or(v6)),
            ..found
        }
    }

    /// The external address of the upstream router. UPnP is plain HTTP to a service that any device on the network
    /// may have reached before: what only UPnP says counts once a STUN server confirms it.
    fn mapped(&self) -> Addresses {
        let is_confirmed = |external: &Ipv4Addr| {
            self.mapping.protocol != Some(Protocol::Upnp) || self.stun.v4 == Some(*external)
        };
        let external = Addresses {
            v4: self.mapping.external.filter(is_confirmed),
            v6: None,
        };
        external.public()
    }

    fn is_published(&self) -> bool {
        match self.settings.publish {
            Publish::Auto => self.host.is_ours(),
            Publish::Always => true,
            Publish::Never => false,
        }
    }

    fn advertised(&self) -> Advertised {
        let public = match self.is_published() {
            true => advertised_public(&self.configured, self.debounce.current(), &self.wan.all),
            false => Addresses::default(),
        };
        advertise(&self.configured, public, self.lan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::clock::Timestamp;
    use hearth_core::wan::track::HOLD;

    fn v4(text: &str) -> Addresses {
        Addresses {
            v4: text.parse().ok(),
            v6: None,
        }
    }

    fn known(settings: WanSettings, host: Option<&str>) -> WanState {
        let configured = ConfiguredAddresses {
            host: host.map(|host| host.parse().unwrap()),
            ..ConfiguredAddresses::default()
        };
        let mut state = WanState::new(settings, configured, ServerHost::default());
        state.lan = Some([192, 168, 1, 1].into());
        state
    }

    fn observe(state: &mut WanState, ip: &str, seconds: u64) -> (Vec<String>, bool) {
        state.wan = WanInterface {
            addresses: v4(ip),
            all: ip.parse().into_iter().collect(),
            ..WanInterface::default()
        };
        let wall = Timestamp::parse("2026-11-23T12:00:00Z").unwrap();
        let outcome = state.update(Duration::from_secs(seconds), wall);
        let advertised = outcome.advertised.server.iter().map(ToString::to_string);
        (advertised.collect(), outcome.is_change)
    }

    #[test]
    fn a_name_must_resolve_here_before_addresses_are_advertised() {
        let mut state = known(WanSettings::default(), None);
        assert_eq!(observe(&mut state, "203.0.113.5", 0), (vec![], true));
        state.lookup = Lookup::Failed("nobody".into());
        assert_eq!(observe(&mut state, "203.0.113.5", 1), (vec![], false));
        state.lookup = Lookup::Found(vec!["203.0.113.5".parse().unwrap()]);
        let all = vec!["192.168.1.1".to_owned(), "203.0.113.5".to_owned()];
        assert_eq!(observe(&mut state, "203.0.113.5", 2), (all, false));
        // DNS still has the old one.
        let (advertised, is_change) = observe(&mut state, "203.0.113.9", 100);
        assert_eq!((advertised[1].as_str(), is_change), ("203.0.113.9", true));
        state.lookup = Lookup::Found(vec!["198.51.100.1".parse().unwrap()]);
        assert_eq!(observe(&mut state, "203.0.113.9", 101).0, [""; 0]);
    }

    #[test]
    fn publish_can_be_always_or_never() {
        for (publish, count) in [(Publish::Always, 2), (Publish::Never, 0)] {
            let settings = WanSettings {
                publish,
                ..WanSettings::default()
            };
            let mut state = known(settings, Some("203.0.113.5"));
            assert_eq!(observe(&mut state, "203.0.113.5", 0).0.len(), count);
        }
    }

    #[test]
    fn an_address_in_the_url_follows_the_public_one() {
        let mut state = known(WanSettings::default(), Some("203.0.113.5"));
        assert_eq!(observe(&mut state, "203.0.113.5", 0).0.len(), 2);
        assert_eq!(observe(&mut state, "203.0.113.9", 100).0[1], "203.0.113.9");
        assert_eq!(state.report(NoticedBy::Netlink).since.map(|_| ()), Some(()));
    }

    #[test]
    fn behind_nat_the_public_address_is_reported_by_others() {
        let mut state = known(WanSettings::default(), Some("192.168.1.1"));
        state.stun = v4("203.0.113.5");
        state.wan.all = vec!["192.168.1.1".parse().unwrap()];
        observe(&mut state, "192.168.178.2", 0);
        let report = state.report(NoticedBy::Netlink);
        assert_eq!(report.public, v4("203.0.113.5"));
        assert_eq!(report.public_source, AddressSource::Stun);
        state.mapping.external = "203.0.113.6".parse().ok();
        observe(&mut state, "192.168.178.2", 100);
        let report = state.report(NoticedBy::Netlink);
        assert_eq!(
            (report.public, report.public_source),
            (v4("203.0.113.6"), AddressSource::Mapping)
        );
        // A router with a private WAN address is itself behind another one.
        state.mapping.external = "10.0.0.2".parse().ok();
        observe(&mut state, "192.168.178.2", 200);
        let report = state.report(NoticedBy::Netlink);
        assert_eq!(
            (report.public, report.public_source),
            (v4("203.0.113.5"), AddressSource::Stun)
        );
    }

    #[test]
    fn what_only_upnp_says_is_published_once_stun_confirms_it() {
        let mut state = known(WanSettings::default(), Some("192.168.1.1"));
        state.mapping.protocol = Some(Protocol::Upnp);
        state.mapping.external = "203.0.113.6".parse().ok();
        state.wan.all = vec!["192.168.1.1".parse().unwrap()];
        let mut at = 0;
        let mut public = |state: &mut WanState| {
            at += 100;
            observe(state, "192.168.178.2", at);
            let report = state.report(NoticedBy::Netlink);
            (report.public, report.public_source)
        };
        assert_eq!(
            public(&mut state),
            (Addresses::default(), AddressSource::None)
        );
        state.stun = v4("203.0.113.5");
        assert_eq!(public(&mut state), (v4("203.0.113.5"), AddressSource::Stun));
        state.stun = v4("203.0.113.6");
        assert_eq!(
            public(&mut state),
            (v4("203.0.113.6"), AddressSource::Mapping)
        );
        state.mapping.protocol = Some(Protocol::Pcp);
        state.stun = Addresses::default();
        assert_eq!(
            public(&mut state),
            (v4("203.0.113.6"), AddressSource::Mapping)
        );
    }

    #[test]
    fn of_several_ipv6_addresses_the_current_one_is_kept() {
        let mut state = known(WanSettings::default(), None);
        let mut observe = |all: &[&str], seconds| {
            let all: Vec<IpAddr> = all.iter().map(|ip| ip.parse().unwrap()).collect();
            let Some(IpAddr::V6(first)) = all.first().copied() else {
                panic!("no IPv6 address");
            };
            state.wan.addresses.v6 = Some(first);
            state.wan.all = all;
            let wall = Timestamp::parse("2026-11-23T12:00:00Z").unwrap();
            state.update(Duration::from_secs(seconds), wall);
            let public = state.report(NoticedBy::Netlink).public;
            public.v6.map(|ip| ip.to_string()).unwrap_or_default()
        };
        assert_eq!(observe(&["2001:db8::1"], 0), "2001:db8::1");
        assert_eq!(observe(&["2001:db8::2", "2001:db8::1"], 100), "2001:db8::1");
        assert_eq!(observe(&["2001:db8::2"], 200), "2001:db8::2");
    }

    #[test]
    fn a_configured_address_takes_precedence() {
        let settings = WanSettings {
            ipv4: "198.51.100.7".parse().ok(),
            ..WanSettings::default()
        };
        let mut state = known(settings, Some("198.51.100.7"));
        assert_eq!(observe(&mut state, "203.0.113.5", 0).0[1], "198.51.100.7");
    }

    #[test]
    fn a_refresh_reports_a_change_once() {
        let mut state = known(WanSettings::default(), None);
        observe(&mut state, "203.0.113.5", 0);
        assert!(state.refresh() && !state.refresh());
        observe(&mut state, "", 10);
        assert!(!state.refresh());
        observe(&mut state, "203.0.113.9", 20);
        assert!(state.refresh() && !state.refresh());
        observe(&mut state, "203.0.113.9", 20 + HOLD.as_secs());
        assert!(!state.refresh());
    }
}
