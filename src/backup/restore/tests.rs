use super::*;
use crate::backup::whole::Source;
use crate::net::tls::CertNames;
use crate::store::Store;
use hearth_core::age::{Encryptor, Identity as AgeIdentity, Lock};
use zeroize::Zeroizing;

const NOW: Timestamp = Timestamp::from_unix_ms(1_795_838_706_000);

struct Server {
    directory: tempfile::TempDir,
}

impl Server {
    /// A data directory with a database, a certificate and settings.
    fn new() -> Self {
        let server = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        drop(Store::open(&server.data(), 1 << 20).unwrap());
        Identity::self_signed(&server.data(), &CertNames::default(), NOW).unwrap();
        fs::write(server.path("hearth.toml"), "log.level = \"info\"\n").unwrap();
        fs::write(server.path("policy.hujson"), "{}").unwrap();
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn backup(&self) -> PathBuf {
        let source = Source {
            data_dir: self.data(),
            server_url: "https://hearth.example".into(),
            settings: vec![
                self.path("hearth.toml"),
                self.path("policy.hujson"),
                self.path("missing"),
            ],
            recipients: Vec::new(),
        };
        let file = self.path("backup.tar.zst");
        fs::write(&file, source.pack_offline(NOW).unwrap()).unwrap();
        file
    }

    fn target(&self, name: &str) -> Target {
        Target {
            data_dir: self.path(name),
            settings_dir: None,
            replace: false,
        }
    }
}

fn restored(file: &Path, target: &Target) -> Result<Restored, RestoreFault> {
    with_secrets(file, target, None, &[])
}

fn with_secrets(
    file: &Path,
    target: &Target,
    passphrase: Option<&str>,
    identities: &[AgeIdentity],
) -> Result<Restored, RestoreFault> {
    let passphrase = passphrase.map(|text| Zeroizing::new(text.to_owned()));
    let mut secrets = Secrets {
        passphrase: &mut || Ok(passphrase.clone()),
        identities,
        memory: 64 << 20,
    };
    restore(file, target, &mut secrets, NOW)
}

fn encrypted(file: &Path, lock: &Lock<'_>) -> PathBuf {
    let mut out = Vec::new();
    let mut encryptor = Encryptor::new(&mut out, lock).unwrap();
    encryptor.write_all(&fs::read(file).unwrap()).unwrap();
    encryptor.finish().unwrap();
    let file = file.with_extension("age");
    fs::write(&file, out).unwrap();
    file
}

fn noise_key(data_dir: &Path) -> String {
    let loaded = store::read_all(&data_dir.join(FILE_NAME)).unwrap();
    About::of(&loaded).noise_key
}

/// All files below a directory, with their contents.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.clone(), fs::read(path).unwrap())),
        }
    }
    found.sort();
    found
}

#[test]
fn a_backup_brings_back_keys_certificate_and_settings() {
    let server = Server::new();
    let file = server.backup();
    let target = server.target("new");
    let restored = restored(&file, &target).unwrap();
    assert_eq!(noise_key(&target.data_dir), noise_key(&server.data()));
    assert_eq!(restored.noise_key, noise_key(&server.data()));
    for name in [FILE_NAME, CERTIFICATE_FILE, KEY_FILE] {
        let (old, new) = (server.data().join(name), target.data_dir.join(name));
        assert_eq!(fs::read(&new).unwrap(), fs::read(old).unwrap(), "{name}");
        assert_eq!(
            new.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{name}"
        );
    }
    let settings = target.data_dir.join(SETTINGS);
    assert_eq!(fs::read(settings.join("policy.hujson")).unwrap(), b"{}");
    assert_eq!(restored.settings.len(), 2);
    let manifest = restored.manifest.unwrap();
    assert_eq!(manifest.server_url, "https://hearth.example");
    assert_eq!(manifest.noise_key, restored.noise_key);
    assert_eq!(manifest.certificate, restored.certificate.unwrap());
    assert!(
        manifest.missing[0].contains("missing"),
        "{:?}",
        manifest.missing
    );
    assert_eq!(restored.kept, None);
    assert!(!target.data_dir.join(STAGING).exists());
    // It starts with what is there.
    drop(Store::open(&target.data_dir, 1 << 20).unwrap());
}

#[test]
fn a_passphrase_and_an_identity_open_it_and_wrong_ones_change_nothing() {
    let server = Server::new();
    let file = server.backup();
    let lock = Lock::Passphrase {
        passphrase: "right",
        work_factor: 8,
    };
    let by_passphrase = encrypted(&file, &lock);
    let target = server.target("a");
    let fault = with_secrets(&by_passphrase, &target, Some("wrong"), &[]).unwrap_err();
    assert_eq!(fault.to_string(), "wrong passphrase");
    let fault = with_secrets(&by_passphrase, &target, None, &[]).unwrap_err();
    assert_eq!(fault.to_string(), "encrypted with a passphrase");
    assert_eq!(files(&target.data_dir), []);
    with_secrets(&by_passphrase, &target, Some("right"), &[]).unwrap();

    let identities = [AgeIdentity::random().unwrap()];
    let for_recipient = encrypted(&file, &Lock::Recipients(&[identities[0].recipient()]));
    let target = server.target("b");
    assert!(with_secrets(&for_recipient, &target, None, &[]).is_err());
    with_secrets(&for_recipient, &target, None, &identities).unwrap();
    assert_eq!(noise_key(&target.data_dir), noise_key(&server.data()));
}

#[test]
fn what_was_there_is_replaced_only_on_request_and_kept_whole() {
    let (server, other) = (Server::new(), Server::new());
    let file = server.backup();
    let mut target = server.target("data");
    target.data_dir = other.data();
    fs::create_dir(other.data().join("backups")).unwrap();
    fs::write(
        other.data().join("backups/hearth-20260101-000000.redb"),
        b"old",
    )
    .unwrap();
    let before = files(&other.data());
    let fault = restored(&file, &target).unwrap_err();
    assert!(matches!(fault, RestoreFault::NotEmpty { .. }), "{fault}");
    assert_eq!(files(&other.data()), before);

    target.replace = true;
    let done = restored(&file, &target).unwrap();
    assert_eq!(noise_key(&other.data()), noise_key(&server.data()));
    let kept = done.kept.unwrap();
    let moved: Vec<_> = before
        .iter()
        .map(|(path, bytes)| {
            let name = path.strip_prefix(other.data()).unwrap();
            (kept.join(name), bytes.clone())
        })
        .collect();
    assert_eq!(files(&kept), moved);
    // An old copy of another server would come back when the database is damaged.
    assert!(!other.data().join("backups").exists());
    // Once more: what the first one kept stays.
    restored(&file, &target).unwrap();
    assert_eq!(files(&kept), moved);
}

#[test]
fn a_server_that_runs_is_not_restored_over() {
    let server = Server::new();
    let file = server.backup();
    let mut target = server.target("data");
    target.replace = true;
    let before = files(&server.data());
    let running = Store::open(&server.data(), 1 << 20).unwrap();
    let fault = restored(&file, &target).unwrap_err();
    assert!(
        fault.to_string().contains("hearth is running on"),
        "{fault}"
    );
    drop(running);
    assert_eq!(files(&server.data()), before);
}

#[test]
fn every_damaged_file_is_refused_and_changes_nothing() {
    let (server, other) = (Server::new(), Server::new());
    let file = server.backup();
    let mut target = server.target("data");
    target.data_dir = other.data();
    target.replace = true;
    let before = files(&other.data());
    let whole = fs::read(&file).unwrap();
    let step = whole.len() / 40;
    for place in (0..whole.len()).step_by(step) {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        fs::write(&file, &changed).unwrap();
        if restored(&file, &target).is_ok() {
            // A bit that means nothing, such as one in a time.
            assert_eq!(
                noise_key(&other.data()),
                noise_key(&server.data()),
                "{place}"
            );
            return;
        }
        fs::write(&file, &whole[..place]).unwrap();
        assert!(restored(&file, &target).is_err(), "cut at {place}");
        assert_eq!(files(&other.data()), before, "{place}");
    }
}

#[test]
fn a_copy_of_the_database_alone_is_enough_and_says_what_is_missing() {
    let server = Server::new();
    let target = server.target("new");
    let restored = restored(&server.data().join(FILE_NAME), &target).unwrap();
    assert_eq!(noise_key(&target.data_dir), noise_key(&server.data()));
    assert_eq!((restored.manifest, restored.certificate), (None, None));
    let notes = restored.notes.join("\n");
    assert!(
        notes.contains("no certificate") && notes.contains("database alone"),
        "{notes}"
    );
}

#[test]
fn a_damaged_database_in_a_right_archive_is_refused() {
    let server = Server::new();
    let path = server.data().join(FILE_NAME);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[16..middle].fill(7);
    let file = server.path("damaged.redb");
    fs::write(&file, bytes).unwrap();
    let target = server.target("new");
    let fault = restored(&file, &target).unwrap_err();
    assert!(matches!(fault, RestoreFault::Damaged(_)), "{fault}");
    assert_eq!(files(&target.data_dir), []);
}

#[test]
fn other_files_are_named_as_such() {
    let server = Server::new();
    let target = server.target("new");
    for (content, expected) in [
        (&b"PK\x03\x04"[..], "neither a backup"),
        (b"", "neither a backup"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\n", "age -d"),
        (b"age-encryption.org/v1\n", "age header is damaged"),
        (b"\x28\xb5\x2f\xfd", "truncated"),
    ] {
        let file = server.path("other");
        fs::write(&file, content).unwrap();
        let fault = restored(&file, &target).unwrap_err();
        assert!(fault.to_string().contains(expected), "{fault}");
    }
}

#[test]
fn settings_go_where_they_are_wanted_and_what_they_replace_is_kept() {
    let server = Server::new();
    let file = server.backup();
    let etc = server.path("etc");
    fs::create_dir(&etc).unwrap();
    fs::write(etc.join("hearth.toml"), "mine").unwrap();
    let target = Target {
        settings_dir: Some(etc.clone()),
        ..server.target("new")
    };
    restored(&file, &target).unwrap();
    assert_eq!(
        fs::read(etc.join("hearth.toml")).unwrap(),
        b"log.level = \"info\"\n"
    );
    let kept = format!("hearth.toml.before-{}", NOW.stamp());
    assert_eq!(fs::read(etc.join(kept)).unwrap(), b"mine");
    assert!(!target.data_dir.join(SETTINGS).exists());
}

#[test]
fn going_back_with_a_copy_of_the_database_keeps_the_certificate() {
    let server = Server::new();
    let copy = server.path("hearth-schema1-17.redb");
    fs::copy(server.data().join(FILE_NAME), &copy).unwrap();
    let certificate = fs::read(server.data().join(CERTIFICATE_FILE)).unwrap();
    let mut target = server.target("data");
    target.replace = true;
    let done = restored(&copy, &target).unwrap();
    assert_eq!(
        fs::read(server.data().join(CERTIFICATE_FILE)).unwrap(),
        certificate
    );
    assert!(done.notes[0].contains("stays"), "{:?}", done.notes);
    assert!(done.kept.unwrap().join(FILE_NAME).exists());
}

/// Made by hearth as it was before schema 2.
const SCHEMA_1: &[u8] = include_bytes!("../../store/fixtures/schema-1.redb");

#[test]
fn going_back_a_version_gives_the_database_of_before_byte_by_byte() {
    let server = Server::new();
    let database = server.data().join(FILE_NAME);
    fs::write(&database, SCHEMA_1).unwrap();
    // The new version converts it and keeps it.
    drop(Store::open(&server.data(), 1 << 20).unwrap());
    assert_ne!(fs::read(&database).unwrap(), SCHEMA_1);
    let kept = fs::read_dir(server.data().join(store::BACKUPS)).unwrap();
    let kept = kept.map(|entry| entry.unwrap().path()).next().unwrap();
    let name = kept.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("hearth-schema1-"), "{name}");
    let mut target = server.target("data");
    target.replace = true;
    let done = restored(&kept, &target).unwrap();
    assert_eq!(fs::read(&database).unwrap(), SCHEMA_1);
    assert_eq!((done.users, done.nodes), (1, 2));
    // What the new version wrote is kept, and the file that was restored, too.
    let before = done.kept.unwrap();
    assert!(before.join(store::BACKUPS).join(name).exists());
    let newer = store::verify(&before.join(FILE_NAME)).unwrap();
    assert_eq!(newer.schema, Some(SCHEMA_VERSION));
    // Once more forward.
    let (_, loaded) = Store::open(&server.data(), 1 << 20).unwrap();
    assert!(matches!(
        loaded.notice,
        Some(store::Notice::Migrated { from: 1, .. })
    ));
}

#[test]
fn a_backup_with_a_database_of_an_earlier_version_is_restored() {
    let server = Server::new();
    fs::write(server.data().join(FILE_NAME), SCHEMA_1).unwrap();
    let file = server.backup();
    let target = server.target("new");
    let done = restored(&file, &target).unwrap();
    assert_eq!((done.users, done.nodes), (1, 2));
    let (_, loaded) = Store::open(&target.data_dir, 1 << 20).unwrap();
    assert!(matches!(
        loaded.notice,
        Some(store::Notice::Migrated { from: 1, .. })
    ));
    assert_eq!((loaded.users.len(), loaded.policies.len()), (1, 2));
    assert_eq!(About::of(&loaded).noise_key, done.noise_key);
}
