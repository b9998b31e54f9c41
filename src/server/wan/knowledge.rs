//! All that is known of the addresses outside, and what follows from it. Does no I/O.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::host::Ours;
use crate::config::wan::{Publish, WanSettings};
use hearth_core::clock::Timestamp;
use hearth_core::wan::choose::Outer;
use hearth_core::wan::mapping::Mapping;
use hearth_core::wan::publish::{Place, Told, outside_of, told};
use hearth_core::wan::report::Lookup;
use hearth_core::wan::track::Track;
use hearth_core::wan::{Addresses, NoticedBy, OutsideFrom, Report};

/// What is known.
pub(super) struct Knowledge {
    settings: WanSettings,
    place: Place,
    pub(super) ours: Ours,
    pub(super) outer: Outer,
    pub(super) home: Option<Ipv4Addr>,
    pub(super) stun: Addresses,
    pub(super) mapping: Mapping,
    pub(super) lookup: Lookup,
    track: Track,
    from: OutsideFrom,
    since: Option<Timestamp>,
    has_settled: bool,
    /// The addresses of the interface at the last refresh that somebody asked for.
    refreshed: Option<Addresses>,
}

/// What follows from what is known.
pub(super) struct Outcome {
    /// What clients are told.
    pub(super) told: Told,
    /// The addresses outside are others than before.
    pub(super) is_change: bool,
    /// Without news it has to be settled again after this time.
    pub(super) again_in: Option<Duration>,
}

impl Knowledge {
    /// Nothing is known yet but what the owner set and what was kept.
    pub(super) fn new(settings: WanSettings, place: Place, ours: Ours) -> Self {
        let mapping = Mapping {
            is_wanted: settings.port_mapping,
            ..Mapping::default()
        };
        Self {
            settings,
            place,
            ours,
            outer: Outer::default(),
            home: None,
            stun: Addresses::default(),
            mapping,
            lookup: Lookup::None,
            track: Track::default(),
            from: OutsideFrom::Nowhere,
            since: None,
            has_settled: false,
            refreshed: None,
        }
    }

    /// Draws the conclusions. `mono` and `wall` are the time.
    pub(super) fn settle(&mut self, mono: Duration, wall: Timestamp) -> Outcome {
        let set = Addresses {
            v4: self.settings.ipv4,
            v6: self.settings.ipv6,
        };
        let sources = [
            (OutsideFrom::Configuration, set),
            (OutsideFrom::Interface, self.of_interface()),
            (OutsideFrom::Mapping, self.mapped()),
            (OutsideFrom::Stun, self.stun.public()),
        ];
        let found = sources
            .iter()
            .fold(Addresses::default(), |found, (_, more)| found.or(*more));
        let step = self.track.see(found, mono);
        let outside = self.track.told();
        if step.is_change {
            // IPv4 is the one that has more than one possible source.
            let origin = sources.iter().find(|(_, source)| match outside.v4 {
                Some(_) => source.v4 == outside.v4,
                None => source.v6.is_some() && source.v6 == outside.v6,
            });
            self.from = origin.map_or(OutsideFrom::Nowhere, |(from, _)| *from);
            self.since = self.has_settled.then_some(wall);
        }
        self.has_settled = true;
        let here: Vec<IpAddr> = (self.outer.all.iter().copied())
            .chain(outside.iter())
            .collect();
        match (&self.lookup, self.place.host) {
            (Lookup::Found(leads_to), _) => self.ours.learn(leads_to, &here),
            (_, Some(host)) => self.ours.learn(&[host], &here),
            _ => {}
        }
        if step.is_change {
            self.ours.remember(outside.iter());
        }
        Outcome {
            told: self.told(),
            is_change: step.is_change,
            again_in: step.again_in,
        }
    }

    /// Whether the addresses are others than when this was asked last.
    pub(super) fn refresh(&mut self) -> bool {
        let before = self.refreshed;
        // What is gone for a moment is no news for a dynamic DNS service.
        let now = self.outer.addresses.or(before.unwrap_or_default());
        self.refreshed = Some(now);
        before != Some(now)
    }

    /// For people and programs.
    pub(super) fn report(&self, noticed_by: NoticedBy) -> Report {
        Report {
            interface: self.outer.interface.clone(),
            own: self.outer.addresses,
            outside: self.track.told(),
            learnt: self.mapped().or(self.stun),
            outside_from: self.from,
            home: self.home,
            has_route: self.outer.has_route,
            is_published: self.is_published(),
            told: self.told().server,
            since: self.since,
            noticed_by,
            lookup: self.lookup.clone(),
            mapping: self.mapping.clone(),
        }
    }

    /// The public addresses of the machine. Of several good IPv6 addresses the one that is told stays, whatever
    /// the order in which the kernel names them.
    fn of_interface(&self) -> Addresses {
        let found = self.outer.addresses.public();
        let told = self.track.told().v6;
        let stays = told.filter(|told| self.outer.all.contains(&IpAddr::V6(*told)));
        Addresses {
            v6: found.v6.map(|v6| stays.unwrap_or(v6)),
            ..found
        }
    }

    fn mapped(&self) -> Addresses {
        let outside = Addresses {
            v4: self.mapping.outside,
            v6: None,
        };
        outside.public()
    }

    fn is_published(&self) -> bool {
        match self.settings.publish {
            Publish::Auto => self.ours.is_ours(),
            Publish::Always => true,
            Publish::Never => false,
        }
    }

    fn told(&self) -> Told {
        let outside = match self.is_published() {
            true => outside_of(&self.place, self.track.told(), &self.outer.all),
            false => Addresses::default(),
        };
        told(&self.place, outside, self.home)
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

    fn known(settings: WanSettings, host: Option<&str>) -> Knowledge {
        let place = Place {
            host: host.map(|host| host.parse().unwrap()),
            ..Place::default()
        };
        let mut knowledge = Knowledge::new(settings, place, Ours::default());
        knowledge.home = Some([192, 168, 1, 1].into());
        knowledge
    }

    fn see(knowledge: &mut Knowledge, ip: &str, seconds: u64) -> (Vec<String>, bool) {
        knowledge.outer = Outer {
            addresses: v4(ip),
            all: ip.parse().into_iter().collect(),
            ..Outer::default()
        };
        let wall = Timestamp::parse("2026-11-23T12:00:00Z").unwrap();
        let outcome = knowledge.settle(Duration::from_secs(seconds), wall);
        let told = outcome.told.server.iter().map(ToString::to_string);
        (told.collect(), outcome.is_change)
    }

    #[test]
    fn a_name_has_to_lead_here_before_clients_are_told() {
        let mut knowledge = known(WanSettings::default(), None);
        assert_eq!(see(&mut knowledge, "203.0.113.5", 0), (vec![], true));
        knowledge.lookup = Lookup::Failed("nobody".into());
        assert_eq!(see(&mut knowledge, "203.0.113.5", 1), (vec![], false));
        knowledge.lookup = Lookup::Found(vec!["203.0.113.5".parse().unwrap()]);
        let all = vec!["192.168.1.1".to_owned(), "203.0.113.5".to_owned()];
        assert_eq!(see(&mut knowledge, "203.0.113.5", 2), (all, false));
        // DNS still says the old one.
        let (told, is_change) = see(&mut knowledge, "203.0.113.9", 100);
        assert_eq!((told[1].as_str(), is_change), ("203.0.113.9", true));
        knowledge.lookup = Lookup::Found(vec!["198.51.100.1".parse().unwrap()]);
        assert_eq!(see(&mut knowledge, "203.0.113.9", 101).0, [""; 0]);
    }

    #[test]
    fn the_owner_may_say_that_clients_are_always_or_never_told() {
        for (publish, count) in [(Publish::Always, 2), (Publish::Never, 0)] {
            let settings = WanSettings {
                publish,
                ..WanSettings::default()
            };
            let mut knowledge = known(settings, Some("203.0.113.5"));
            assert_eq!(see(&mut knowledge, "203.0.113.5", 0).0.len(), count);
        }
    }

    #[test]
    fn an_address_in_the_url_follows_the_one_outside() {
        let mut knowledge = known(WanSettings::default(), Some("203.0.113.5"));
        assert_eq!(see(&mut knowledge, "203.0.113.5", 0).0.len(), 2);
        assert_eq!(see(&mut knowledge, "203.0.113.9", 100).0[1], "203.0.113.9");
        assert_eq!(
            knowledge.report(NoticedBy::Netlink).since.map(|_| ()),
            Some(())
        );
    }

    #[test]
    fn behind_nat_the_address_outside_is_what_others_say() {
        let mut knowledge = known(WanSettings::default(), Some("192.168.1.1"));
        knowledge.stun = v4("203.0.113.5");
        knowledge.outer.all = vec!["192.168.1.1".parse().unwrap()];
        see(&mut knowledge, "192.168.178.2", 0);
        let report = knowledge.report(NoticedBy::Netlink);
        assert_eq!(report.outside, v4("203.0.113.5"));
        assert_eq!(report.outside_from, OutsideFrom::Stun);
        knowledge.mapping.outside = "203.0.113.6".parse().ok();
        see(&mut knowledge, "192.168.178.2", 100);
        let report = knowledge.report(NoticedBy::Netlink);
        assert_eq!(
            (report.outside, report.outside_from),
            (v4("203.0.113.6"), OutsideFrom::Mapping)
        );
        // A router that has a private address outside is itself behind another one.
        knowledge.mapping.outside = "10.0.0.2".parse().ok();
        see(&mut knowledge, "192.168.178.2", 200);
        let report = knowledge.report(NoticedBy::Netlink);
        assert_eq!(
            (report.outside, report.outside_from),
            (v4("203.0.113.5"), OutsideFrom::Stun)
        );
    }

    #[test]
    fn of_several_good_ipv6_addresses_the_told_one_stays() {
        let mut knowledge = known(WanSettings::default(), None);
        let mut see = |all: &[&str], seconds| {
            let all: Vec<IpAddr> = all.iter().map(|ip| ip.parse().unwrap()).collect();
            let Some(IpAddr::V6(first)) = all.first().copied() else {
                panic!("no IPv6 address");
            };
            knowledge.outer.addresses.v6 = Some(first);
            knowledge.outer.all = all;
            let wall = Timestamp::parse("2026-11-23T12:00:00Z").unwrap();
            knowledge.settle(Duration::from_secs(seconds), wall);
            let outside = knowledge.report(NoticedBy::Netlink).outside;
            outside.v6.map(|ip| ip.to_string()).unwrap_or_default()
        };
        assert_eq!(see(&["2001:db8::1"], 0), "2001:db8::1");
        assert_eq!(see(&["2001:db8::2", "2001:db8::1"], 100), "2001:db8::1");
        assert_eq!(see(&["2001:db8::2"], 200), "2001:db8::2");
    }

    #[test]
    fn what_the_owner_set_counts_whatever_is_found() {
        let settings = WanSettings {
            ipv4: "198.51.100.7".parse().ok(),
            ..WanSettings::default()
        };
        let mut knowledge = known(settings, Some("198.51.100.7"));
        assert_eq!(see(&mut knowledge, "203.0.113.5", 0).0[1], "198.51.100.7");
    }

    #[test]
    fn a_refresh_says_once_that_the_address_is_another() {
        let mut knowledge = known(WanSettings::default(), None);
        see(&mut knowledge, "203.0.113.5", 0);
        assert!(knowledge.refresh() && !knowledge.refresh());
        see(&mut knowledge, "", 10);
        assert!(!knowledge.refresh());
        see(&mut knowledge, "203.0.113.9", 20);
        assert!(knowledge.refresh() && !knowledge.refresh());
        see(&mut knowledge, "203.0.113.9", 20 + HOLD.as_secs());
        assert!(!knowledge.refresh());
    }
}
