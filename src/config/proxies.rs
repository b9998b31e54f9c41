//! `listen.trusted_proxies`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::fault::ConfigFault;
use super::file::RawConfig;
use super::value::List;

const KEY: &str = "listen.trusted_proxies";

/// The addresses and ranges of trusted reverse proxies. An invalid one is skipped with a warning, so that no typo makes
/// anyone trusted.
pub(super) fn take(raw: &mut RawConfig) -> Vec<IpNet> {
    let Some(List(texts)) = raw.take::<List<String>>(KEY) else {
        return Vec::new();
    };
    let mut ranges = Vec::new();
    for text in texts {
        match range(&text) {
            Some(range) => ranges.push(range),
            None => {
                let reason = format!(
                    "{text:?}: expected an address or a range such as `127.0.0.1` or `172.16.0.0/12`, and not all addresses"
                );
                raw.warn(
                    raw.location_of(KEY),
                    ConfigFault::BadItem { key: KEY, reason },
                );
            }
        }
    }
    ranges
}

/// An address or a range; not that of all addresses, in which anyone could name any client.
fn range(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let alone = || {
        text.parse::<IpAddr>()
            .ok()
            .map(|address| IpNet::from(address.to_canonical()))
    };
    let range = text.parse::<IpNet>().ok().or_else(alone)?;
    (range.prefix_len() > 0).then(|| range.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_range_trusts_nobody() {
        let texts = [
            "127.0.0.1",
            "::1",
            "::ffff:10.0.0.1",
            "172.16.5.0/12",
            " fd00::/8 ",
            "0.0.0.0/0",
            "::/0",
            "localhost",
            "10.0.0.0/33",
            "10.0.0.1:80",
            "*",
            "",
        ];
        let list = texts.map(|text| format!("{text:?}")).join(", ");
        let text = format!("[listen]\ntrusted_proxies = [{list}]\n");
        let mut raw = RawConfig::parse("hearth.toml".into(), &text);
        let ranges: Vec<String> = take(&mut raw).iter().map(ToString::to_string).collect();
        let expected = [
            "127.0.0.1/32",
            "::1/128",
            "10.0.0.1/32",
            "172.16.0.0/12",
            "fd00::/8",
        ];
        assert_eq!(ranges, expected);
        let warnings = raw.finish();
        assert_eq!(warnings.len(), texts.len() - expected.len());
        assert!(
            warnings[0].to_string().contains("0.0.0.0/0"),
            "{}",
            warnings[0]
        );
        for value in ["true", "\"127.0.0.1\"", "[1]"] {
            let text = format!("[listen]\ntrusted_proxies = {value}\n");
            let mut raw = RawConfig::parse("hearth.toml".into(), &text);
            assert_eq!(
                (take(&mut raw), raw.finish().len()),
                (Vec::new(), 1),
                "{value}"
            );
        }
    }
}
