//! Flags of `hearth serve` and of what reads the same configuration.

use std::path::PathBuf;

use clap::Args;

use crate::config::{DnsName, ListenAddress, Overrides, ServerUrl};

/// Flags of the server; each overrides the key of the configuration file.
#[derive(Debug, Default, Args)]
pub struct ServeFlags {
    /// Configuration file [default: /etc/hearth/hearth.toml if it exists].
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the database, the keys and the certificate.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// URL that clients connect to.
    #[arg(long, value_name = "URL")]
    server_url: Option<ServerUrl>,
    /// Listen address for plain HTTP, or `off`.
    #[arg(long, value_name = "ADDR")]
    http: Option<ListenAddress>,
    /// Listen address for HTTPS, or `off`.
    #[arg(long, value_name = "ADDR")]
    https: Option<ListenAddress>,
    /// Certificate chain (PEM).
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM).
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Listen address for STUN, or `off`.
    #[arg(long, value_name = "ADDR")]
    stun: Option<ListenAddress>,
    /// Base domain of node names (MagicDNS).
    #[arg(long, value_name = "NAME")]
    base_domain: Option<DnsName>,
    /// Board whose limits apply, a memory class such as `memory-128`, or `auto`.
    #[arg(long, value_name = "ID")]
    board: Option<String>,
}

impl ServeFlags {
    /// The flags for the configuration.
    pub fn overrides(self, socket: Option<PathBuf>) -> Overrides {
        Overrides {
            config: self.config,
            data_dir: self.data_dir,
            server_url: self.server_url,
            http: self.http,
            https: self.https,
            tls_cert: self.tls_cert,
            tls_key: self.tls_key,
            stun: self.stun,
            base_domain: self.base_domain,
            board: self.board,
            socket,
        }
    }
}
