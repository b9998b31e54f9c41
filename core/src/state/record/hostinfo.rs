//! Host information, a part of nodes and pending registrations.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::state::model::Hostinfo;

#[derive(Serialize, Deserialize)]
pub(super) struct HostinfoV1 {
    raw: Box<str>,
    shared: Box<str>,
    hostname: Box<str>,
    os: Box<str>,
    client_version: Box<str>,
    routable_ips: Box<[Box<str>]>,
    request_tags: Box<[Box<str>]>,
}

impl HostinfoV1 {
    pub(super) fn of(hostinfo: &Hostinfo) -> Self {
        let routes = hostinfo.routable_ips.iter();
        Self {
            raw: hostinfo.raw.clone(),
            shared: hostinfo.shared.clone(),
            hostname: hostinfo.hostname.clone(),
            os: hostinfo.os.clone(),
            client_version: hostinfo.client_version.clone(),
            routable_ips: routes.map(|route| route.to_string().into()).collect(),
            request_tags: hostinfo.request_tags.clone(),
        }
    }

    /// The domain value. `os_version` is stored elsewhere, if at all.
    pub(super) fn into_domain(self, os_version: Box<str>) -> Arc<Hostinfo> {
        let routes = self.routable_ips.iter();
        Arc::new(Hostinfo {
            raw: self.raw,
            shared: self.shared,
            hostname: self.hostname,
            os: self.os,
            os_version,
            client_version: self.client_version,
            routable_ips: routes.filter_map(|route| route.parse().ok()).collect(),
            request_tags: self.request_tags,
        })
    }
}
