//! `hearth doctor`: collects the facts and returns the findings.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::admin::hearth::wan;
use crate::admin::{ApiCall, ApiResult, json};
use crate::api::{self, Counts, Diagnosis};
use crate::config::lan::Network;
use crate::config::{Host, Scheme};
use crate::status::names;
use hearth_core::doctor;
use hearth_core::doctor::backup::{Backups, Place};
use hearth_core::doctor::public_url::PublicCheck;
use hearth_core::doctor::{Certificate, Facts, Level, LimitUsage, Memory};
use hearth_core::netmap::dns::taken_names;
use hearth_core::state::model::PendingState;
use hearth_core::state::snapshot::Snapshot;

/// Longest file of /proc, in bytes.
const FILE_MAX: usize = 4096;

impl ApiCall<'_> {
    pub(crate) async fn diagnose(&self) -> ApiResult {
        let check = self.admin.about.public_url.check().await;
        let backups = self.backup_facts().await;
        let facts = self.facts(check.as_deref(), backups);
        let findings = doctor::diagnose(&facts);
        let mut counts = Counts::default();
        for finding in &findings {
            let count = match finding.level {
                Level::Ok => &mut counts.ok,
                Level::Note => &mut counts.note,
                Level::Warning => &mut counts.warning,
                Level::Problem => &mut counts.problem,
            };
            *count = count.saturating_add(1);
        }
        let worst = findings.first().map_or(Level::Ok, |finding| finding.level);
        let shown = findings.into_iter().map(|finding| api::Finding {
            id: finding.id.to_owned(),
            level: finding.level.word().to_owned(),
            title: finding.title,
            detail: finding.detail,
            advice: finding.advice,
        });
        json(&Diagnosis {
            checked_at: facts.now,
            worst: worst.word().to_owned(),
            counts,
            findings: shown.collect(),
            wan: wan::shown(&facts.wan, false),
        })
    }

    async fn backup_facts(&self) -> Backups {
        let copies = self.admin.about.copies.borrow().clone();
        let place = self
            .admin
            .backups
            .place(&copies.directory, copies.is_configured);
        let place = match copies.every {
            Some(_) => place.await,
            None => Place::Elsewhere,
        };
        Backups {
            every: copies.every,
            directory: copies.directory.display().to_string(),
            is_configured: copies.is_configured,
            place,
            has_command: copies.has_command,
            last: copies.last,
            due_since: copies.due_since,
            fault: copies.fault,
        }
    }

    fn facts(&self, check: Option<&PublicCheck>, backups: Backups) -> Facts {
        let snapshot = self.admin.engine.snapshot();
        let about = &self.admin.about;
        let addresses = &about.addresses;
        let url = addresses.server_url.get();
        let trouble = about.policy_status.borrow().trouble(&snapshot);
        let nodes = snapshot.nodes();
        let waiting = snapshot.pending().values();
        let relay_is_on = about.relay.relay.is_some();
        let regions = about.tailnet.borrow().region_count;
        let (first, bits) = snapshot.settings().prefixes.v4();
        Facts {
            now: self.now.wall,
            clock_is_plausible: self.now.is_plausible(),
            wan: (*about.wan.report()).clone(),
            public: check.cloned(),
            dropped_upgrade: about.dropped_upgrades.last(self.now),
            server_url: url.to_string(),
            host: match url.host() {
                Host::Name(name) => doctor::Host::Name(name.to_string()),
                Host::Address(address) => doctor::Host::Address(*address),
            },
            port: url.port(),
            is_https: url.scheme() == Scheme::Https,
            http: addresses.http,
            https: addresses.https,
            stun: addresses.stun,
            relay_is_on,
            other_regions: regions.saturating_sub(usize::from(relay_is_on)),
            nodes_v4: Ipv4Net::new(first, bits).unwrap_or_default(),
            certificate: addresses.https.map(|_| {
                let identity = about.served.current();
                Certificate {
                    is_own: about.certificate_is_own,
                    validity: identity.validity(),
                    is_for_host: identity.is_for(url.host()),
                }
            }),
            database_fault: snapshot.disk_fault().map(|fault| (**fault).clone()),
            backups,
            limit_usages: self.limit_usages(&snapshot),
            memory: about.memory_budget.and_then(|budget| {
                let used = resident_bytes()?;
                Some(Memory { used, budget })
            }),
            is_closed: about.is_closed || about.policy_status.borrow().is_closed(&snapshot),
            local_v4: local_v4(),
            unconfirmed_names: self.unconfirmed_names(&snapshot),
            taken_names: self.taken_names(&snapshot),
            opening: about.opening.clone(),
            warnings: (about.warnings.iter().cloned())
                .chain(trouble)
                .chain(about.proxies.warning())
                .collect(),
            left_behind: self.left_behind(&snapshot),
            not_forwarding: names::not_forwarding(&snapshot),
            waiting_routes: (nodes.iter())
                .filter(|node| node.waiting_routes().next().is_some())
                .count(),
            unauthorized: nodes.iter().filter(|node| !node.authorized).count(),
            pending: waiting
                .filter(|login| login.state == PendingState::Waiting)
                .count(),
        }
    }

    /// See [`taken_names`].
    pub(super) fn taken_names(&self, snapshot: &Snapshot) -> Vec<String> {
        let shared = self.admin.about.tailnet.borrow().clone();
        taken_names(snapshot, &shared)
    }

    /// See [`names::left_behind_warning`].
    pub(super) fn left_behind(&self, snapshot: &Snapshot) -> Option<String> {
        let about = &self.admin.about;
        let url = about.addresses.server_url.get();
        names::left_behind_warning(snapshot, about.wan.report().moved, &url)
    }

    /// See [`names::unconfirmed`].
    pub(super) fn unconfirmed_names(&self, snapshot: &Snapshot) -> Vec<String> {
        let shared = self.admin.about.tailnet.borrow().clone();
        let dns = &shared.dns;
        names::unconfirmed(
            snapshot,
            &shared.base_domain,
            &dns.settings,
            &dns.file_records,
        )
    }

    fn limit_usages(&self, snapshot: &Snapshot) -> Vec<LimitUsage> {
        let limits = &self.admin.limits;
        let online = snapshot.nodes().iter();
        let online = online.filter(|node| node.presence.is_online()).count();
        let relay = self.admin.about.relay.relay.as_ref();
        let relayed = relay.map_or(0, |relay| relay.stats().connections);
        let all = [
            (
                "nodes",
                "limits.nodes",
                snapshot.nodes().len(),
                limits.nodes,
            ),
            (
                "users",
                "limits.users",
                snapshot.users().len(),
                limits.users,
            ),
            (
                "preauth keys",
                "limits.preauth_keys",
                snapshot.preauth_keys().len(),
                limits.preauth_keys,
            ),
            (
                "API keys",
                "limits.api_keys",
                snapshot.api_keys().len(),
                limits.api_keys,
            ),
            (
                "devices online",
                "limits.map_streams",
                online,
                limits.map_streams,
            ),
            (
                "connections to the relay",
                "limits.derp_connections",
                relayed,
                limits.derp_connections,
            ),
        ];
        let usages = all.map(|(what, key, used, most)| LimitUsage {
            what,
            key,
            used,
            most,
        });
        usages.into()
    }
}

/// The IPv4 addresses of this machine; empty if unknown.
fn local_v4() -> Vec<Ipv4Addr> {
    let network = Network::of_this_machine();
    network
        .addresses
        .iter()
        .map(|local| local.address)
        .collect()
}

/// Resident memory of this process. Source: `VmRSS` in Linux `Documentation/filesystems/proc.rst`.
fn resident_bytes() -> Option<usize> {
    let status = crate::files::read("/proc/self/status".as_ref(), FILE_MAX).ok()?;
    let status = String::from_utf8(status).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_this_process_is_known() {
        let bytes = resident_bytes().unwrap();
        assert!(bytes > 100 * 1024, "{bytes}");
    }
}
