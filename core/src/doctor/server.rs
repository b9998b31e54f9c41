//! Findings about the server itself: clock, certificate, database, limits, pending approvals.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::doctor::public_url::Served;
use crate::doctor::{ENABLE_FORWARDING, Facts, Finding, Level, LimitUsage};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate that expires within this time should have been renewed. Certificates of public CAs are valid
/// for 90 days and are renewed after 60.
const ENDS_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Usage from which a limit is nearly reached, in percent.
const NEAR: usize = 90;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![clock(facts), database(facts)];
    findings.extend(certificate(facts));
    findings.extend(facts.limit_usages.iter().filter_map(limit));
    findings.extend(memory(facts));
    findings.extend(configuration(facts));
    findings.extend(opening(facts));
    findings.extend(names(facts));
    findings.extend(taken_names(facts));
    findings.extend(left_behind(facts));
    findings.extend(forwarding(facts));
    findings.extend(waiting(facts));
    findings
}

fn clock(facts: &Facts) -> Finding {
    if facts.clock_is_plausible {
        return Finding::new("clock", Level::Ok, "The clock is set");
    }
    Finding::new("clock", Level::Problem, "The clock is not set")
        .detail(format!(
            "The time is {}. Until the clock is set, nothing expires, and certificates of other servers cannot be verified.",
            facts.now
        ))
        .advice("Enable NTP. A router without a battery-backed clock needs an internet connection for it.")
}

fn database(facts: &Facts) -> Finding {
    let Some(fault) = &facts.database_fault else {
        return Finding::new("database", Level::Ok, "The database is writable");
    };
    let title = format!("The database is read-only: {}", fault.cause.text());
    let mut detail = format!(
        "Since {}. Connected devices stay connected, and known devices can reconnect; changes are rejected.",
        fault.since
    );
    if !fault.detail.is_empty() {
        detail.push_str(&format!("\n{}", fault.detail));
    }
    let advice = fault.cause.advice();
    Finding::new("database", Level::Problem, title)
        .detail(detail)
        .advice(format!(
            "{advice} hearth tries again by itself, and needs no restart."
        ))
}

fn certificate(facts: &Facts) -> Option<Finding> {
    let certificate = facts.certificate.as_ref()?;
    if certificate.is_own {
        let served = facts
            .public
            .as_ref()
            .and_then(|check| check.certificate.as_ref());
        match served {
            _ if !facts.is_https => {}
            Some(Served::Trusted) => {
                let title = "A proxy has a valid certificate for server_url";
                return Some(Finding::new("certificate.proxy", Level::Ok, title));
            }
            // There is a finding about the certificate that devices meet.
            Some(Served::Own | Served::Rejected(_)) => return None,
            Some(Served::Unjudged) | None => return Some(own_for_https(facts)),
        }
        let title = "The relay has a self-signed certificate";
        let detail =
            "Devices of the tailnet accept it, because they verify its hash. Browsers do not.";
        return Some(Finding::new("certificate.own", Level::Ok, title).detail(detail));
    }
    let title = match certificate.validity {
        _ if !facts.clock_is_plausible => return None,
        None => "The validity of the certificate is unreadable".to_owned(),
        Some((begin, _)) if facts.now < begin => {
            let finding = Finding::new(
                "certificate.future",
                Level::Problem,
                "The certificate is not yet valid",
            );
            let detail = format!("It is valid from {begin}; the time is {}.", facts.now);
            let advice = "Check the clock of this machine and the certificate.";
            return Some(finding.detail(detail).advice(advice));
        }
        Some((_, end)) if end <= facts.now => {
            let finding = Finding::new(
                "certificate.ended",
                Level::Problem,
                "The certificate has expired",
            );
            let detail = format!("It expired at {end}. Devices and browsers reject it.");
            return Some(finding.detail(detail).advice(RENEW));
        }
        Some((_, end)) if end.since(facts.now) < ENDS_SOON => {
            let title = format!("The certificate expires in {}", days(end, facts.now));
            let finding = Finding::new("certificate.ends-soon", Level::Warning, title);
            return Some(
                finding
                    .detail(format!("It expires at {end}."))
                    .advice(RENEW),
            );
        }
        Some((_, end)) => format!("The certificate is valid for {}", days(end, facts.now)),
    };
    if !certificate.is_for_host {
        let title = "The certificate is for another name";
        let detail = format!("It is not valid for the host of {}.", facts.server_url);
        let advice = "Get a certificate for that name, or change server_url.";
        let finding = Finding::new("certificate.other-name", Level::Warning, title);
        return Some(finding.detail(detail).advice(advice));
    }
    Some(Finding::new("certificate", Level::Ok, title))
}

fn own_for_https(facts: &Facts) -> Finding {
    // If the name resolves elsewhere, a reverse proxy may have the certificate.
    let level = match facts.wan.is_published {
        true => Level::Problem,
        false => Level::Warning,
    };
    let title = "Devices reject the certificate";
    let detail = "server_url is https, but the certificate is self-signed. Devices need one from a public CA, unless a reverse proxy has one.";
    let advice = "Get a certificate for the name (on OpenWrt: package acme), and set tls.cert_file and tls.key_file; or use a reverse proxy with a certificate.";
    Finding::new("certificate.own", level, title)
        .detail(detail)
        .advice(advice)
}

const RENEW: &str = "Renew it, and reload hearth (`service hearth reload`, or SIGHUP).";

fn days(end: Timestamp, now: Timestamp) -> String {
    let left = end.since(now).as_secs() / DAY.as_secs();
    match left {
        0 => "less than a day".to_owned(),
        1 => "a day".to_owned(),
        left => format!("{left} days"),
    }
}

fn limit(usage: &LimitUsage) -> Option<Finding> {
    let LimitUsage {
        what,
        key,
        used,
        most,
    } = *usage;
    let (level, title) = match used {
        used if used >= most => (Level::Problem, format!("Limit of {what} reached")),
        used if used.saturating_mul(100) >= most.saturating_mul(NEAR) => {
            (Level::Warning, format!("Limit of {what} almost reached"))
        }
        _ => return None,
    };
    let advice = format!("Delete unused ones, or raise {key}.");
    let finding = Finding::new("limit", level, title);
    Some(
        finding
            .detail(format!("{used} of {most} in use."))
            .advice(advice),
    )
}

fn memory(facts: &Facts) -> Option<Finding> {
    let memory = facts.memory?;
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    let detail = format!(
        "hearth uses {} MiB; its memory budget on this machine is {} MiB.",
        mib(memory.used),
        mib(memory.budget)
    );
    if memory.used <= memory.budget {
        return Some(
            Finding::new("memory", Level::Ok, "Memory usage is within the budget").detail(detail),
        );
    }
    let finding = Finding::new("memory", Level::Warning, "Memory usage is above the budget");
    let advice = "Lower the [limits], or remove them to use those of the board.";
    Some(finding.detail(detail).advice(advice))
}

fn configuration(facts: &Facts) -> Option<Finding> {
    (!facts.warnings.is_empty()).then(|| {
        let (level, title) = match facts.is_closed {
            true => (
                Level::Problem,
                "Errors in the configuration or the policy restrict the server",
            ),
            false => (Level::Warning, "The configuration or the policy has errors"),
        };
        let finding = Finding::new("configuration", level, title);
        let advice =
            "Run `hearth check` for the configuration and `hearth policy check` for the policy.";
        finding.detail(facts.warnings.join("\n")).advice(advice)
    })
}

fn names(facts: &Facts) -> Option<Finding> {
    (!facts.unconfirmed_names.is_empty()).then(|| {
        let title = "Names in the configuration that devices gave themselves";
        let finding = Finding::new("dns.unconfirmed-names", Level::Warning, title);
        let detail = facts.unconfirmed_names.join("\n");
        let advice = "A setting or record means only devices that an administrator named, tags and numbers of nodes: any device may report any host name. Rename the device, give it a tag, or change the setting.";
        finding.detail(detail).advice(advice)
    })
}

fn opening(facts: &Facts) -> Option<Finding> {
    let text = facts.opening.as_ref()?;
    let title = "The database was damaged or lost when hearth started";
    let finding = Finding::new("database.opening", Level::Warning, title);
    let advice = "Check the disk and the power supply (`dmesg`), and make a backup elsewhere: `hearth backup`. This is shown until the next start.";
    Some(finding.detail(format!("{text}.")).advice(advice))
}

fn taken_names(facts: &Facts) -> Option<Finding> {
    (!facts.taken_names.is_empty()).then(|| {
        let title = "DNS records with the name of a device";
        let finding = Finding::new("dns.taken-names", Level::Warning, title);
        let advice = "Rename each of these records or devices: clients mix the addresses of both.";
        finding.detail(facts.taken_names.join("\n")).advice(advice)
    })
}

fn left_behind(facts: &Facts) -> Option<Finding> {
    let detail = facts.left_behind.as_ref()?;
    let title = "The LAN address of this machine has changed, and devices know only the one before";
    let finding = Finding::new("server-url.moved", Level::Problem, title);
    let advice = "Give this machine a fixed address in the router (DHCP reservation), best the one before. Or set server_url to an address or name that stays, and log the devices in again.";
    Some(finding.detail(detail).advice(advice))
}

fn forwarding(facts: &Facts) -> Option<Finding> {
    (!facts.not_forwarding.is_empty()).then(|| {
        let names = facts.not_forwarding.join(", ");
        let title = format!("IP forwarding is off on devices with approved routes: {names}");
        let finding = Finding::new("routes.forwarding", Level::Warning, title);
        let detail = "Their clients say so. The subnets behind them cannot be reached, and who uses them as an exit node has no internet.";
        finding
            .detail(detail)
            .advice(format!("On each of them: {ENABLE_FORWARDING}."))
    })
}

fn waiting(facts: &Facts) -> Vec<Finding> {
    let one = |id, count: usize, title: &str, advice: &str| {
        (count > 0)
            .then(|| Finding::new(id, Level::Note, format!("{title}: {count}")).advice(advice))
    };
    let all = [
        one(
            "waiting.logins",
            facts.pending,
            "Pending registrations",
            "Run `hearth pending list`, then `hearth pending approve`.",
        ),
        one(
            "waiting.devices",
            facts.unauthorized,
            "Devices that await approval",
            "Run `hearth nodes list`, then `hearth nodes approve`.",
        ),
        one(
            "waiting.routes",
            facts.waiting_routes,
            "Devices with routes that await approval",
            "Run `hearth nodes list-routes`, then `hearth nodes approve-routes`.",
        ),
    ];
    all.into_iter().flatten().collect()
}
