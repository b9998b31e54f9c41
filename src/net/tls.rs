//! TLS: the certificate of the server, self-signed or from files, and the settings of every connection.
//!
//! Must not know HTTP.

#[cfg_attr(not(feature = "https-client"), path = "tls/no_client.rs")]
pub mod client;
pub mod validity;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use data_encoding::HEXLOWER;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig, SupportedCipherSuite};
use zeroize::Zeroizing;

use crate::config::Host;
use crate::files;
use hearth_core::clock::Timestamp;

/// Longest certificate or key file, in bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Path of the self-signed certificate, below the data directory.
pub const CERTIFICATE_FILE: &str = "tls/cert.pem";

/// Path of the key of the self-signed certificate, below the data directory.
pub const KEY_FILE: &str = "tls/key.pem";

/// Why there is no certificate. The text names the file and the problem.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or its directory.
        path: PathBuf,
        /// The system error.
        source: io::Error,
    },
    /// A file is too long.
    #[error("{}: longer than {MAX_FILE_BYTES} bytes; not a PEM file with certificates or a key", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A file has no valid certificate in PEM form.
    #[error("{}: no valid PEM certificate (`-----BEGIN CERTIFICATE-----`)", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file has no valid private key in PEM form.
    #[error("{}: no valid PEM private key (`-----BEGIN PRIVATE KEY-----`)", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The key type is not supported, or the key does not match the certificate.
    #[error("{} and {}: {source}", certificate.display(), key.display())]
    Mismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
        /// The error of the TLS library.
        source: rustls::Error,
    },
    /// A certificate cannot be created.
    #[error("cannot create a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The TLS library refused the settings.
    #[error("TLS settings: {0}")]
    Settings(#[from] rustls::Error),
}

/// Whether clients trust a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// A trusted authority has signed it, and it is valid for the name.
    Trusted,
    /// Why not.
    Rejected(String),
    /// Unknown: this system has no CA certificates.
    NoCaCertificates,
}

/// The certificate that a server presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// SHA-256 of the leaf, as [`Identity::sha256`].
    pub sha256: String,
    /// Whether clients trust it.
    pub trust: Trust,
}

/// Subject of a self-signed certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertNames {
    /// Common name, at most 64 characters.
    pub common_name: String,
    /// DNS names of the server.
    pub dns: Vec<String>,
    /// IP addresses of the server.
    pub addresses: Vec<IpAddr>,
}

/// A certificate chain and its private key.
#[derive(Debug, Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    sha256: String,
}

impl Identity {
    /// Reads a chain (leaf first) and its key from PEM files.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_slice_iter(&read(certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .unwrap_or_default();
        if chain.is_empty() {
            return Err(TlsError::NoCertificate {
                path: certificate.into(),
            });
        }
        let secret = PrivateKeyDer::from_pem_slice(&read(key)?)
            .map_err(|_| TlsError::NoKey { path: key.into() })?;
        Self::of(chain, secret).map_err(|source| TlsError::Mismatch {
            certificate: certificate.into(),
            key: key.into(),
            source,
        })
    }

    fn of(
        chain: Vec<CertificateDer<'static>>,
        secret: PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        let leaf = chain.first().map_or(&[][..], |leaf| leaf);
        let digest = ring::digest::digest(&ring::digest::SHA256, leaf);
        let sha256 = HEXLOWER.encode(digest.as_ref());
        let certified = CertifiedKey::from_der(chain, secret, &provider::default_provider())?;
        Ok(Self {
            certified: Arc::new(certified),
            sha256,
        })
    }

    /// Loads the self-signed certificate below the data directory, or creates it the first time.
    ///
    /// An existing certificate is kept, because clients have pinned it, unless it lacks one of the DNS names:
    /// clients compare the name as well. It is then issued again for the same key. IP addresses are not compared.
    ///
    /// Nothing depends on this certificate but its hash, which clients get with their maps. So a new one is made if it or
    /// its key is damaged; the damaged files stay beside it, as `NAME.damaged-TIME`. One that cannot be saved is valid
    /// until the program ends.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn self_signed(
        data_dir: &Path,
        names: &CertNames,
        now: Timestamp,
    ) -> Result<Self, TlsError> {
        let files = OwnFiles {
            certificate: data_dir.join(CERTIFICATE_FILE),
            key: data_dir.join(KEY_FILE),
        };
        if !files.certificate.exists() {
            return files.make(
                KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
                names,
            );
        }
        match Self::load(&files.certificate, &files.key) {
            Ok(identity) if names.dns.iter().all(|name| identity.has_name(name)) => Ok(identity),
            Ok(identity) => Ok(files.issue_again(identity, names)),
            Err(fault) => files.replace_damaged(&fault, names, now),
        }
    }

    /// SHA-256 of the leaf in DER form, as 64 lower-case hexadecimal digits: the part after `sha256-raw:` in a DERP map.
    /// Source: `DERPNode.CertName` in tailscale `tailcfg/derpmap.go`.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Validity of the leaf: not before, not after.
    pub fn validity(&self) -> Option<(Timestamp, Timestamp)> {
        validity::of_certificate(self.certified.cert.first()?)
    }

    /// Whether the leaf covers this host.
    pub fn is_for(&self, host: &Host) -> bool {
        let name = match host {
            Host::Name(name) => ServerName::try_from(name.to_string()).ok(),
            Host::Address(address) => Some(ServerName::from(*address)),
        };
        name.is_some_and(|name| self.covers(&name))
    }

    fn has_name(&self, name: &str) -> bool {
        ServerName::try_from(name).is_ok_and(|name| self.covers(&name))
    }

    fn covers(&self, name: &ServerName<'_>) -> bool {
        let leaf = self.certified.cert.first();
        let parsed = leaf.and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
        parsed.is_some_and(|parsed| verify_server_name(&parsed, name).is_ok())
    }
}

/// The files of the self-signed certificate.
struct OwnFiles {
    certificate: PathBuf,
    key: PathBuf,
}

impl OwnFiles {
    /// Makes a certificate for a key, and saves both if that is possible.
    fn make(&self, pair: KeyPair, names: &CertNames) -> Result<Identity, TlsError> {
        let made = issue(&pair, names)?;
        // Writes the key first: a certificate without its key would be damage at the next start.
        let saved = write_private(&self.key, pair.serialize_pem().as_bytes())
            .and_then(|()| write_private(&self.certificate, made.pem().as_bytes()));
        if let Err(fault) = saved {
            tracing::error!(%fault, "cannot save the self-signed certificate; it is valid until hearth restarts");
        }
        let secret = PrivatePkcs8KeyDer::from(pair.serialize_der());
        Ok(Identity::of(vec![made.der().clone()], secret.into())?)
    }

    /// Replaces a certificate by one for the same key with these names.
    fn issue_again(&self, identity: Identity, names: &CertNames) -> Identity {
        let (file, names_now) = (self.certificate.display(), names.dns.join(", "));
        let issued = self.read_key().and_then(|pair| {
            write_private(&self.certificate, issue(&pair, names)?.pem().as_bytes())?;
            Identity::load(&self.certificate, &self.key)
        });
        match issued {
            Ok(issued) => {
                tracing::warn!(%file, names = names_now, "self-signed certificate issued again for more names; clients get its new hash with their next map");
                issued
            }
            Err(fault) => {
                tracing::error!(%file, names = names_now, %fault, "cannot issue the self-signed certificate again; clients reject it for the new names");
                identity
            }
        }
    }

    /// Makes a new certificate in place of one that cannot be loaded, for the same key if that is readable.
    fn replace_damaged(
        &self,
        fault: &TlsError,
        names: &CertNames,
        now: Timestamp,
    ) -> Result<Identity, TlsError> {
        tracing::error!(%fault, "the self-signed certificate is damaged; making a new one, whose hash clients get with their next map");
        keep_damaged(&self.certificate, now);
        let pair = match self.read_key() {
            Ok(pair) => pair,
            Err(_) => {
                keep_damaged(&self.key, now);
                KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?
            }
        };
        self.make(pair, names)
    }

    fn read_key(&self) -> Result<KeyPair, TlsError> {
        let pem = Zeroizing::new(read(&self.key)?);
        let no_key = || TlsError::NoKey {
            path: self.key.clone(),
        };
        let pem = std::str::from_utf8(&pem).map_err(|_| no_key())?;
        KeyPair::from_pem(pem).map_err(|_| no_key())
    }
}

/// Moves a damaged file aside.
fn keep_damaged(path: &Path, now: Timestamp) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let to = path.with_file_name(files::damaged_name(&name, now));
    let file = path.display();
    match fs::rename(path, &to) {
        Ok(()) => tracing::warn!(%file, kept = %to.display(), "damaged file kept"),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
        Err(fault) => tracing::warn!(%file, %fault, "cannot move the damaged file aside"),
    }
}

fn issue(pair: &KeyPair, names: &CertNames) -> Result<rcgen::Certificate, TlsError> {
    let mut wanted = CertificateParams::default();
    // Routers without a real-time clock boot in 1970 or at the build date of their firmware, so a
    // certificate valid from "now" could lie in the future for a client. It is pinned, so it expires late.
    wanted.not_before = rcgen::date_time_ymd(2024, 1, 1);
    wanted.not_after = rcgen::date_time_ymd(2049, 12, 31);
    wanted
        .distinguished_name
        .push(DnType::CommonName, names.common_name.as_str());
    for name in &names.dns {
        let name = name.as_str().try_into()?;
        wanted.subject_alt_names.push(SanType::DnsName(name));
    }
    let addresses = names.addresses.iter().copied().map(SanType::IpAddress);
    wanted.subject_alt_names.extend(addresses);
    wanted.key_usages.push(KeyUsagePurpose::DigitalSignature);
    let usage = ExtendedKeyUsagePurpose::ServerAuth;
    wanted.extended_key_usages.push(usage);
    Ok(wanted.self_signed(pair)?)
}

fn write_private(path: &Path, contents: &[u8]) -> Result<(), TlsError> {
    files::replace(path, contents).map_err(|source| TlsError::File {
        path: path.into(),
        source,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let fault = |source| TlsError::File {
        path: path.into(),
        source,
    };
    if fs::metadata(path).map_err(fault)?.len() > MAX_FILE_BYTES {
        return Err(TlsError::TooLong { path: path.into() });
    }
    fs::read(path).map_err(fault)
}

/// A certificate that carries the public key of the relay instead of an identity, so that clients
/// learn the key in the TLS handshake without waiting for the first response of the relay.
///
/// It comes last in the chain; clients that do not know it ignore it. Source:
/// `Server.initMetacert` in tailscale `derp/derpserver/derpserver.go`.
#[derive(Debug, Clone)]
pub struct MetaCertificate(CertificateDer<'static>);

/// Half of the validity of the meta certificate, before and after it was made.
const META_VALIDITY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl MetaCertificate {
    /// Makes the meta certificate of a relay with this public key (64 hexadecimal digits) and this protocol
    /// version.
    ///
    /// # Errors
    /// [`TlsError::Make`].
    pub fn new(public_key_hex: &str, version: u32, now: Timestamp) -> Result<Self, TlsError> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        let mut wanted = CertificateParams::default();
        let at = |moment: i64| {
            time::OffsetDateTime::from_unix_timestamp(moment)
                .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
        };
        let validity = i64::try_from(META_VALIDITY.as_secs()).unwrap_or_default();
        wanted.not_before = at(now.unix_seconds().saturating_sub(validity));
        wanted.not_after = at(now.unix_seconds().saturating_add(validity));
        wanted.serial_number = Some(u64::from(version).into());
        wanted.is_ca = IsCa::ExplicitNoCa;
        // Source: `derpconst.MetaCertCommonNamePrefix`.
        let name = format!("derpkey{public_key_hex}");
        wanted
            .distinguished_name
            .push(DnType::CommonName, name.as_str());
        Ok(Self(wanted.self_signed(&pair)?.der().clone()))
    }
}

/// Certificate resolver: the identity for new connections; it can be replaced while the server runs.
#[derive(Debug)]
pub struct CertResolver(RwLock<CurrentCert>);

/// The certificate now, with and without the meta certificate.
#[derive(Debug)]
struct CurrentCert {
    identity: Identity,
    meta: Option<MetaCertificate>,
    /// The chain with the meta certificate of the relay at its end.
    with_meta: Arc<CertifiedKey>,
}

impl CurrentCert {
    fn new(identity: Identity, meta: Option<MetaCertificate>) -> Self {
        let certified = &identity.certified;
        let with_meta = match &meta {
            None => certified.clone(),
            Some(meta) => {
                let mut chain = certified.cert.clone();
                chain.push(meta.0.clone());
                Arc::new(CertifiedKey {
                    cert: chain,
                    key: certified.key.clone(),
                    ocsp: certified.ocsp.clone(),
                })
            }
        };
        Self {
            identity,
            meta,
            with_meta,
        }
    }
}

impl CertResolver {
    /// A resolver with this identity.
    pub fn new(identity: Identity) -> Arc<Self> {
        Arc::new(Self(RwLock::new(CurrentCert::new(identity, None))))
    }

    /// Replaces the identity for new connections; open connections keep theirs.
    pub fn replace(&self, identity: Identity) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let meta = current.meta.take();
        *current = CurrentCert::new(identity, meta);
    }

    /// Adds or replaces the meta certificate of the relay.
    pub fn set_meta(&self, meta: MetaCertificate) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *current = CurrentCert::new(current.identity.clone(), Some(meta));
    }

    /// The identity served now.
    pub fn current(&self) -> Identity {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.identity.clone()
    }
}

impl ResolvesServerCert for CertResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        // TLS 1.2 sends certificates in the clear, where middleboxes may reject the meta certificate. A
        // client that offers a cipher suite of TLS 1.3 gets TLS 1.3.
        let is_tls13 = hello
            .cipher_suites()
            .iter()
            .any(|suite| matches!(suite.as_str(), Some(name) if name.starts_with("TLS13_")));
        Some(match is_tls13 {
            true => current.with_meta.clone(),
            false => current.identity.certified.clone(),
        })
    }
}

/// Settings of TLS connections.
pub type Settings = Arc<ServerConfig>;

/// AES support of the processor. Without AES instructions ChaCha20-Poly1305 is several times faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aes {
    /// AES instructions: the client chooses the cipher.
    InHardware,
    /// No AES instructions: ChaCha20-Poly1305 for every client that supports it.
    InSoftware,
}

/// Makes the settings of TLS connections: TLS 1.2 and 1.3, HTTP/1.1 only, no session resumption.
///
/// HTTP/1.1 only because both upgrades need it. No session cache and no tickets, because clients do
/// not resume sessions, and anyone could fill the cache.
///
/// # Errors
/// [`TlsError::Settings`].
pub fn server_config(resolver: Arc<CertResolver>, aes: Aes) -> Result<Settings, TlsError> {
    let mut provider: CryptoProvider = provider::default_provider();
    if aes == Aes::InSoftware {
        let is_chacha = |suite: &SupportedCipherSuite| {
            matches!(
                suite.suite(),
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                    | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
                    | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            )
        };
        provider
            .cipher_suites
            .sort_by_key(|suite| !is_chacha(suite));
    }
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    // Clients on faster machines prefer AES.
    config.ignore_client_order = aes == Aes::InSoftware;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names() -> CertNames {
        CertNames {
            common_name: "hearth".into(),
            dns: vec!["hearth.lan".into()],
            addresses: vec![IpAddr::from([192, 168, 1, 1])],
        }
    }

    #[test]
    fn the_certificate_is_created_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::self_signed(dir.path(), &names(), NOW).unwrap();
        let second = Identity::self_signed(dir.path(), &CertNames::default(), NOW).unwrap();
        assert_eq!(first.sha256(), second.sha256());
        assert_eq!(first.sha256().len(), 64);
        for file in [CERTIFICATE_FILE, KEY_FILE] {
            let mode = fs::metadata(dir.path().join(file)).unwrap().permissions();
            assert_eq!(mode.mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(dir.path().join("tls")).unwrap().count(), 2);
    }

    #[test]
    fn a_certificate_that_lacks_a_name_is_issued_again_for_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let issue = |dns: &[&str]| {
            let names = CertNames {
                dns: dns.iter().map(|name| (*name).to_owned()).collect(),
                ..names()
            };
            Identity::self_signed(dir.path(), &names, NOW).unwrap()
        };
        let key = || fs::read(dir.path().join(KEY_FILE)).unwrap();
        let (first, first_key) = (issue(&[]), key());
        // A change of addresses alone keeps the hash that clients have pinned.
        assert_eq!(issue(&[]).sha256(), first.sha256());
        let both = issue(&["home.example", "relay.example"]);
        assert_ne!(both.sha256(), first.sha256());
        assert_eq!(key(), first_key);
        for name in ["home.example", "RELAY.example"] {
            assert!(both.is_for(&Host::Name(name.parse().unwrap())), "{name}");
        }
        for fewer in [&["home.example"][..], &["relay.example", "home.example"]] {
            assert_eq!(issue(fewer).sha256(), both.sha256());
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test file may be lost")]
    #[test]
    fn a_crash_between_the_two_files_is_survived() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tls")).unwrap();
        fs::write(dir.path().join(KEY_FILE), "half").unwrap();
        fs::write(dir.path().join("tls/cert.new"), "half").unwrap();
        assert!(Identity::self_signed(dir.path(), &names(), NOW).is_ok());
    }

    /// A way to damage the certificate or its key, and whether the key is lost by it.
    type Damage = (&'static str, bool, fn(&Path, &Path));

    #[expect(clippy::disallowed_methods, reason = "a test file may be lost")]
    fn set(path: &Path, contents: &[u8]) {
        fs::write(path, contents).unwrap();
    }

    fn truncate(path: &Path) {
        let contents = fs::read(path).unwrap();
        set(path, &contents[..contents.len() / 2]);
    }

    /// A directory: no user can read it as a file, not even root.
    fn make_unreadable(path: &Path) {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }

    const DAMAGES: [Damage; 12] = [
        ("empty certificate", false, |cert, _| set(cert, b"")),
        ("truncated certificate", false, |cert, _| truncate(cert)),
        ("garbage for a certificate", false, |cert, _| {
            set(cert, &[0xff; 4096]);
        }),
        ("PEM without a certificate", false, |cert, _| {
            set(
                cert,
                b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            );
        }),
        ("huge certificate", false, |cert, _| {
            set(cert, &[b'A'; 300_000])
        }),
        ("unreadable certificate", false, |cert, _| {
            make_unreadable(cert)
        }),
        ("empty key", true, |_, key| set(key, b"")),
        ("truncated key", true, |_, key| truncate(key)),
        ("garbage for a key", true, |_, key| set(key, &[0; 512])),
        ("missing key", true, |_, key| fs::remove_file(key).unwrap()),
        ("unreadable key", true, |_, key| make_unreadable(key)),
        ("key of another certificate", false, |_, key| {
            let other = tempfile::tempdir().unwrap();
            own(other.path());
            fs::copy(other.path().join(KEY_FILE), key).unwrap();
        }),
    ];

    const NOW: Timestamp = Timestamp::from_unix_ms(1_780_000_000_000);

    fn own(directory: &Path) -> Identity {
        Identity::self_signed(directory, &names(), NOW).unwrap()
    }

    #[test]
    fn a_damaged_certificate_or_key_is_replaced_and_kept_beside() {
        for (what, loses_key, damage) in DAMAGES {
            let dir = tempfile::tempdir().unwrap();
            let (cert, key) = (dir.path().join(CERTIFICATE_FILE), dir.path().join(KEY_FILE));
            let before = own(dir.path());
            damage(&cert, &key);
            let key_before = fs::read(&key).ok();
            let after = own(dir.path());
            assert_ne!(after.sha256(), before.sha256(), "{what}");
            // It is a whole one, which stays from now on.
            let loaded = Identity::load(&cert, &key).unwrap();
            assert_eq!(loaded.sha256(), after.sha256(), "{what}");
            assert_eq!(own(dir.path()).sha256(), after.sha256(), "{what}");
            assert_eq!(fs::read(&key).ok() == key_before, !loses_key, "{what}");
            let kept = |file: &Path| {
                let kept = format!("{}.damaged-20260528-202640", file.display());
                Path::new(&kept).exists()
            };
            assert!(kept(&cert), "{what}");
            assert_eq!(kept(&key), loses_key && what != "missing key", "{what}");
        }
    }

    /// On a disk that is read-only, or full.
    #[test]
    fn a_certificate_that_cannot_be_saved_is_served_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        // Nothing can be created below a file.
        set(&dir.path().join("tls"), b"");
        let first = own(dir.path());
        assert!(first.is_for(&Host::Name("hearth.lan".parse().unwrap())));
        let config = server_config(CertResolver::new(first), Aes::InHardware);
        assert!(config.is_ok());
    }

    #[test]
    fn faults_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        Identity::self_signed(dir.path(), &names(), NOW).unwrap();
        Identity::self_signed(other.path(), &names(), NOW).unwrap();
        let certificate = dir.path().join(CERTIFICATE_FILE);
        let key = dir.path().join(KEY_FILE);
        let missing = dir.path().join("missing.pem");
        let cases = [
            (&missing, &key, "missing.pem: No such file"),
            (&key, &key, "key.pem: no valid PEM certificate"),
            (
                &certificate,
                &certificate,
                "cert.pem: no valid PEM private key",
            ),
            (&certificate, &other.path().join(KEY_FILE), "key.pem: "),
        ];
        for (certificate, key, expected) in cases {
            let error = Identity::load(certificate, key).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_meta_certificate_is_last_and_survives_a_replacement() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Identity::self_signed(a.path(), &names(), NOW).unwrap();
        let second = Identity::self_signed(b.path(), &names(), NOW).unwrap();
        let resolver = CertResolver::new(first.clone());
        let now = Timestamp::from_unix_ms(1_780_000_000_000);
        let meta = MetaCertificate::new(&"ab".repeat(32), 2, now).unwrap();
        resolver.set_meta(meta.clone());
        for identity in [first, second] {
            resolver.replace(identity.clone());
            let current = resolver.0.read().unwrap();
            let chain = &current.with_meta.cert;
            assert_eq!(chain.len(), 2);
            assert_eq!(chain[0], identity.certified.cert[0]);
            assert_eq!(chain[1], meta.0);
        }
    }

    #[test]
    fn the_identity_can_be_replaced() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Identity::self_signed(a.path(), &names(), NOW).unwrap();
        let second = Identity::self_signed(b.path(), &names(), NOW).unwrap();
        let resolver = CertResolver::new(first);
        assert!(server_config(Arc::clone(&resolver), Aes::InHardware).is_ok());
        resolver.replace(second.clone());
        assert_eq!(resolver.current().sha256(), second.sha256());
    }
}
