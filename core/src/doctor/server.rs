//! The server itself: clock, certificate, database, limits, and what waits for its owner.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::doctor::{Facts, Filling, Finding, Level};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate that ends within this time should have been renewed. Certificates of public authorities are
/// good for 90 days, and are renewed after 60.
const ENDS_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// From this share on a limit is near, in hundredths.
const NEAR: usize = 90;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![clock(facts), database(facts)];
    findings.extend(certificate(facts));
    findings.extend(facts.fillings.iter().filter_map(filling));
    findings.extend(memory(facts));
    findings.extend(configuration(facts));
    findings.extend(waiting(facts));
    findings
}

fn clock(facts: &Facts) -> Finding {
    if facts.clock_is_plausible {
        return Finding::new("clock", Level::Ok, "The clock is set");
    }
    Finding::new("clock", Level::Problem, "The clock is not set")
        .detail(format!(
            "It says {}. Nothing expires until it is set, and certificates of others cannot be checked.",
            facts.now
        ))
        .advice("Let the machine get the time (NTP): on a router without a battery that needs the internet.")
}

fn database(facts: &Facts) -> Finding {
    if facts.database_is_writable {
        return Finding::new("database", Level::Ok, "The database takes changes");
    }
    Finding::new("database", Level::Problem, "The database takes no changes")
        .detail("Devices that have joined stay connected; nothing new is kept.")
        .advice("See the log of hearth. Usually the disk is full or has failed; restart hearth when that is mended.")
}

fn certificate(facts: &Facts) -> Option<Finding> {
    let certificate = facts.certificate.as_ref()?;
    if certificate.is_own {
        if facts.is_https {
            // Where the name does not lead here, a proxy in front may have the certificate.
            let level = match facts.wan.is_published {
                true => Level::Problem,
                false => Level::Warning,
            };
            let title = "Devices do not accept the certificate";
            let detail = "server_url is https, and the certificate is one that hearth made itself. Who comes by the URL demands one of a public authority, unless a proxy in front has one.";
            let advice = "Get a certificate for the name (on OpenWrt: the package acme), and set tls.cert_file and tls.key_file; or let a proxy in front have one.";
            let finding = Finding::new("certificate.own", level, title);
            return Some(finding.detail(detail).advice(advice));
        }
        let title = "The relay has a certificate of its own";
        let detail = "Devices of the tailnet accept it: they know it by its hash, whatever the address is. Browsers do not.";
        return Some(Finding::new("certificate.own", Level::Ok, title).detail(detail));
    }
    let title = match certificate.validity {
        _ if !facts.clock_is_plausible => return None,
        None => "The end of the certificate cannot be read".to_owned(),
        Some((begin, _)) if facts.now < begin => {
            let finding = Finding::new(
                "certificate.future",
                Level::Problem,
                "The certificate is not good yet",
            );
            let detail = format!("It begins at {begin}; now is {}.", facts.now);
            let advice = "Check the clock of this machine, and the certificate.";
            return Some(finding.detail(detail).advice(advice));
        }
        Some((_, end)) if end <= facts.now => {
            let finding = Finding::new(
                "certificate.ended",
                Level::Problem,
                "The certificate has ended",
            );
            let detail = format!("It ended at {end}. Devices and browsers refuse it.");
            return Some(finding.detail(detail).advice(RENEW));
        }
        Some((_, end)) if end.since(facts.now) < ENDS_SOON => {
            let title = format!("The certificate ends in {}", days(end, facts.now));
            let finding = Finding::new("certificate.ends-soon", Level::Warning, title);
            return Some(finding.detail(format!("It ends at {end}.")).advice(RENEW));
        }
        Some((_, end)) => format!("The certificate is good for {}", days(end, facts.now)),
    };
    if !certificate.is_for_host {
        let title = "The certificate is for another name";
        let detail = format!("It is not for the host of {}.", facts.server_url);
        let advice = "Get one for that name, or change server_url.";
        let finding = Finding::new("certificate.other-name", Level::Warning, title);
        return Some(finding.detail(detail).advice(advice));
    }
    Some(Finding::new("certificate", Level::Ok, title))
}

const RENEW: &str = "Renew it, and send hearth the signal HUP (`service hearth reload`), so that it serves the new one.";

fn days(end: Timestamp, now: Timestamp) -> String {
    let left = end.since(now).as_secs() / DAY.as_secs();
    match left {
        0 => "less than a day".to_owned(),
        1 => "a day".to_owned(),
        left => format!("{left} days"),
    }
}

fn filling(filling: &Filling) -> Option<Finding> {
    let Filling {
        what,
        key,
        used,
        most,
    } = *filling;
    let (level, title) = match used {
        used if used >= most => (Level::Problem, format!("There is no room for more {what}")),
        used if used.saturating_mul(100) >= most.saturating_mul(NEAR) => (
            Level::Warning,
            format!("There is little room for more {what}"),
        ),
        _ => return None,
    };
    let advice = format!("Delete those that nobody needs, or raise {key}.");
    let finding = Finding::new("limit", level, title);
    Some(finding.detail(format!("{used} of {most}.")).advice(advice))
}

fn memory(facts: &Facts) -> Option<Finding> {
    let memory = facts.memory?;
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    let detail = format!(
        "hearth takes {} MiB, and should take {} MiB on this machine.",
        mib(memory.used),
        mib(memory.budget)
    );
    if memory.used <= memory.budget {
        return Some(
            Finding::new("memory", Level::Ok, "The memory is within its budget").detail(detail),
        );
    }
    let finding = Finding::new("memory", Level::Warning, "The memory is above its budget");
    let advice = "Lower the [limits], or leave them to the file of the board.";
    Some(finding.detail(detail).advice(advice))
}

fn configuration(facts: &Facts) -> Option<Finding> {
    (!facts.warnings.is_empty()).then(|| {
        let title = "The configuration, or the policy, has faults";
        let finding = Finding::new("configuration", Level::Warning, title);
        let advice = "`hearth check` names faults of the configuration, `hearth policy check` those of the policy.";
        finding.detail(facts.warnings.join("\n")).advice(advice)
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
            "Logins that await a decision",
            "`hearth pending list` shows them.",
        ),
        one(
            "waiting.devices",
            facts.unauthorized,
            "Devices that may not take part yet",
            "`hearth nodes list` shows them, `hearth nodes approve` lets them in.",
        ),
        one(
            "waiting.routes",
            facts.waiting_routes,
            "Devices with routes that await approval",
            "`hearth nodes list-routes` shows them.",
        ),
    ];
    all.into_iter().flatten().collect()
}
