//! NextDNS URLs, which carry the profile and the device.

use crate::policy::Compiled;
use crate::state::dns::NEXT_DNS;
use crate::state::model::Node;

/// The parameters of a NextDNS URL. Source: `generateDNSConfig` in headscale
/// `hscontrol/mapper/mapper.go`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct NextDns {
    /// The profile that the policy gives to the node, instead of the configured one.
    pub(super) profile: Option<Box<str>>,
    /// Name, model and address of the device.
    pub(super) device: Option<[Box<str>; 3]>,
}

/// Prefix of the attributes about NextDNS.
const ATTRIBUTE: &str = "nextdns:";

/// The attribute that leaves out the device.
const NO_DEVICE_INFO: &str = "nextdns:no-device-info";

impl NextDns {
    pub(super) fn of(policy: &Compiled, viewer: &Node) -> Self {
        let attributes = policy.attributes(viewer.id);
        // A profile becomes part of a URL path and must not change it.
        let is_profile = |text: &&str| {
            let clean = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            (1..=64).contains(&text.len()) && text.bytes().all(clean)
        };
        let mut profiles = (attributes.keys())
            .filter(|name| &***name != NO_DEVICE_INFO)
            .filter_map(|name| name.strip_prefix(ATTRIBUTE))
            .filter(is_profile);
        let device = || {
            let hostname = &viewer.hostinfo.hostname;
            let name = match hostname.is_empty() {
                true => &viewer.label,
                false => hostname,
            };
            let address = viewer.ipv4.to_string().into();
            [name.clone(), viewer.hostinfo.os.clone(), address]
        };
        Self {
            profile: profiles.next().map(Box::from),
            device: (!attributes.contains_key(NO_DEVICE_INFO)).then(device),
        }
    }

    /// The URL for this node.
    pub(super) fn url(&self, url: &str) -> String {
        let url = match &self.profile {
            Some(profile) => format!("{NEXT_DNS}/{profile}"),
            None => url.to_owned(),
        };
        let Some([name, model, address]) = &self.device else {
            return url;
        };
        let (path, query) = url.split_once('?').unwrap_or((&url, ""));
        let mut query: Vec<String> = query
            .split('&')
            .filter(|pair| !pair.is_empty() && !pair.starts_with("device_"))
            .map(str::to_owned)
            .collect();
        let fields = [
            ("device_name", name),
            ("device_model", model),
            ("device_ip", address),
        ];
        let known = fields.into_iter().filter(|(_, value)| !value.is_empty());
        query.extend(known.map(|(key, value)| format!("{key}={}", escaped(value))));
        format!("{path}?{}", query.join("&"))
    }
}

/// A text as a value in a query (RFC 3986 section 2.3).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => escaped.push(byte.into()),
            false => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_query_are_escaped() {
        assert_eq!(escaped("Anna's \u{fc}"), "Anna%27s%20%C3%BC");
    }
}
