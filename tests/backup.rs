//! Backups of the program as a person makes them: automatic copies, one file over the socket and from the data directory,
//! restore, check and repair; and how large they are.

#![allow(
    clippy::disallowed_methods,
    reason = "nobody misses a file of a test, which reads the clock itself"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth::backup::whole::{About, Source};
use hearth::store::{self, FILE_NAME, Store, Verdict};
use hearth_core::clock::Timestamp;
use hearth_core::keys::{MachineKey, NodeKey};
use hearth_core::state::command::{PresentedKey, Register, RequestedExpiry};
use hearth_core::state::model::{Hostinfo, Settings};
use hearth_core::state::secret::SecretHash;
use hearth_core::state::testing::{World, plain};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hearth");

/// How often is looked whether something has happened, and for how long.
const LOOK: Duration = Duration::from_millis(25);
const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    directory: tempfile::TempDir,
    child: Option<Child>,
}

impl Server {
    fn start(settings: &str) -> Self {
        let mut server = Self {
            directory: tempfile::tempdir().unwrap(),
            child: None,
        };
        let listen = "listen.http = \"127.0.0.1:0\"\nlisten.https = \"127.0.0.1:0\"\nlisten.stun = \"off\"\n";
        fs::write(server.path("hearth.toml"), format!("{listen}{settings}")).unwrap();
        server.run();
        server
    }

    fn run(&mut self) {
        let child = Command::new(PROGRAM)
            .args(["serve", "--config"])
            .arg(self.path("hearth.toml"))
            .arg("--data-dir")
            .arg(self.data())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.path("log")).unwrap())
            .spawn();
        self.child = Some(child.unwrap());
        self.wait_for("the socket", || self.hearth(&["health"]).status.success());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn wait_for(&self, what: &str, mut happened: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !happened() {
            assert!(begun.elapsed() < PATIENCE, "{what} does not come");
            std::thread::sleep(LOOK);
        }
    }

    fn hearth(&self, arguments: &[&str]) -> Output {
        Command::new(PROGRAM)
            .env("HEARTH_SOCKET", self.data().join("hearth.sock"))
            .current_dir(self.directory.path())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Standard output and error of a command that ends with this code.
    fn says(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.hearth(arguments);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        text
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let id = child.id().to_string();
            let stopping = Command::new("kill").args(["-TERM", &id]).status();
            assert!(stopping.unwrap().success());
            assert!(child.wait().unwrap().success());
        }
    }

    fn copies(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.data().join("backups"))
            .into_iter()
            .flatten();
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut copies: Vec<PathBuf> = paths
            .filter(|path| path.extension().is_some_and(|end| end == "redb"))
            .collect();
        copies.sort();
        copies
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_copy_is_made_after_a_change_and_brought_back_by_repair() {
    let mut server = Server::start("backup.every = \"1s\"\nbackup.keep = 2\n");
    server.wait_for("the first copy", || !server.copies().is_empty());
    for (number, user) in ["anna", "bert", "carl"].iter().enumerate() {
        let before = server.copies();
        server.says(0, &["users", "create", user]);
        server.wait_for("a copy", || server.copies().last() != before.last());
        assert!(server.copies().len() <= 2, "{number}");
    }
    let newest = server.copies().pop().unwrap();
    let report = store::verify(&newest).unwrap();
    assert!(
        matches!(report.verdict, Verdict::Sound { .. }),
        "{report:?}"
    );
    assert_eq!(store::read_all(&newest).unwrap().users.len(), 3);
    let status = server.says(0, &["status"]);
    assert!(status.contains("Last backup"), "{status}");
    let data = server.data();
    let data = data.to_str().unwrap();
    let running = server.says(1, &["repair", data]);
    assert!(running.contains("hearth is running on"), "{running}");
    server.stop();

    server.says(0, &["check", "--data", data]);
    let database = server.data().join(FILE_NAME);
    let mut bytes = fs::read(&database).unwrap();
    let middle = bytes.len() / 2;
    bytes[4096..middle].fill(0x55);
    fs::write(&database, &bytes).unwrap();
    let said = server.says(1, &["check", "--data", data]);
    assert!(said.contains("repair would bring back"), "{said}");
    assert_eq!(fs::read(&database).unwrap(), bytes);
    server.says(0, &["repair", data]);
    server.says(0, &["check", "--data", data]);
    server.run();
    assert!(server.says(0, &["users", "list"]).contains("carl"));
}

#[test]
fn a_restored_database_is_said_in_the_log_and_in_the_status_until_the_next_start() {
    let mut server = Server::start("backup.every = \"1s\"\n");
    server.says(0, &["users", "create", "anna"]);
    server.wait_for("a copy with anna", || {
        let newest = server.copies().pop();
        newest.is_some_and(|newest| {
            store::read_all(&newest).is_ok_and(|found| !found.users.is_empty())
        })
    });
    server.stop();
    let database = server.data().join(FILE_NAME);
    let mut bytes = fs::read(&database).unwrap();
    let middle = bytes.len() / 2;
    bytes[4096..middle].fill(0x55);
    fs::write(&database, &bytes).unwrap();

    server.run();
    let log = fs::read_to_string(server.path("log")).unwrap();
    let mut lines = log.lines();
    let line = lines.find(|line| line.contains("restored the newest good backup"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    assert!(
        line.contains("ERROR") && line.contains("hearth.redb.damaged-"),
        "{line}"
    );
    assert!(server.says(0, &["users", "list"]).contains("anna"));
    let status = server.says(0, &["status"]);
    let said = "was restored at this start, and changes made since that backup are lost";
    assert!(
        status.contains(said) && status.contains("hearth.redb.damaged-"),
        "{status}"
    );
    let doctor = server.hearth(&["doctor"]).stdout;
    let doctor = String::from_utf8(doctor).unwrap();
    assert!(
        doctor.contains("The database was damaged or lost when hearth started"),
        "{doctor}"
    );
    server.stop();
    server.run();
    let status = server.says(0, &["status"]);
    assert!(!status.contains("restored at this start"), "{status}");
}

#[test]
fn nothing_is_copied_while_nothing_changes_and_after_a_restart() {
    let mut server = Server::start("backup.every = \"1s\"\n");
    server.says(0, &["users", "create", "anna"]);
    server.wait_for("the copy", || {
        let newest = server.copies().pop();
        newest.is_some_and(|newest| {
            store::read_all(&newest).is_ok_and(|found| !found.users.is_empty())
        })
    });
    let copies = server.copies();
    server.stop();
    server.run();
    // A change that is none, and one that is: what comes next is the copy of that.
    server.says(0, &["users", "create", "bert"]);
    server.wait_for("the next copy", || server.copies().len() > copies.len());
    assert_eq!(server.copies().len(), copies.len() + 1);
}

#[test]
fn a_backup_of_a_running_server_is_restored_on_another_machine() {
    let server = Server::start("log.level = \"debug\"\n");
    server.says(0, &["users", "create", "anna"]);
    let sheet = server.says(
        0,
        &["backup", "--sheet-file", "sheet.html", "b.tar.zst.age"],
    );
    let page = fs::read_to_string(server.path("sheet.html")).unwrap();
    let begin = page
        .find("AGE-SECRET-KEY-1")
        .unwrap_or_else(|| panic!("{sheet}"));
    fs::write(server.path("key.txt"), &page[begin..begin + 74]).unwrap();
    let url = server.says(0, &["status"]);
    assert!(!url.contains("backup-in-progress"));
    let said = server.says(
        0,
        &[
            "restore",
            "--data-dir",
            "new",
            "--settings-dir",
            "etc",
            "--identity",
            "key.txt",
            "b.tar.zst.age",
        ],
    );
    assert!(
        said.contains("Noise key") && said.contains("mkey:"),
        "{said}"
    );
    assert_eq!(
        fs::read(server.path("etc/hearth.toml")).unwrap(),
        fs::read(server.path("hearth.toml")).unwrap()
    );
    let found = store::read_all(&server.path("new").join(FILE_NAME)).unwrap();
    assert_eq!(found.users.len(), 1);
    for name in ["tls/cert.pem", "tls/key.pem"] {
        assert_eq!(
            fs::read(server.path("new").join(name)).unwrap(),
            fs::read(server.data().join(name)).unwrap()
        );
    }
    // Once more is refused; so is a running server's own directory.
    let again = server.says(
        1,
        &[
            "restore",
            "--data-dir",
            "new",
            "--identity",
            "key.txt",
            "b.tar.zst.age",
        ],
    );
    assert!(
        again.contains("is not empty") && again.contains("nothing was changed"),
        "{again}"
    );
    let own = server.data();
    let own = server.says(
        1,
        &[
            "--force",
            "restore",
            "--data-dir",
            own.to_str().unwrap(),
            "--identity",
            "key.txt",
            "b.tar.zst.age",
        ],
    );
    assert!(own.contains("hearth is running on"), "{own}");
    let missing = server.says(1, &["restore", "--data-dir", "other", "b.tar.zst.age"]);
    assert!(missing.contains("--identity"), "{missing}");
}

#[test]
fn a_program_gets_the_encrypted_backup() {
    let key = hearth_core::age::Identity::random().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("got");
    let script = directory.path().join("program");
    fs::write(
        &script,
        "#!/bin/sh\ncat >\"$1.new\" && mv \"$1.new\" \"$1\"\n",
    )
    .unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).unwrap();
    let server = Server::start(&format!(
        "backup.every = \"1s\"\nbackup.command = [{script:?}, {file:?}]\nbackup.recipients = [\"{}\"]\n",
        key.recipient()
    ));
    if server
        .says(0, &["check", "--config", "hearth.toml"])
        .contains("never run as root")
    {
        return;
    }
    server.wait_for("the backup", || file.exists());
    let identity = server.path("identity");
    fs::write(&identity, key.reveal().as_bytes()).unwrap();
    server.says(
        0,
        &[
            "restore",
            "--data-dir",
            "new",
            "--identity",
            identity.to_str().unwrap(),
            file.to_str().unwrap(),
        ],
    );
}

/// A database of a tailnet of this size, and a backup of it.
fn tailnet(nodes: usize) -> (tempfile::TempDir, Source) {
    let directory = tempfile::tempdir().unwrap();
    let (mut world, _) = World::with_user();
    world.model.settings = Arc::new(Settings {
        max_nodes: nodes,
        ..(*world.model.settings).clone()
    });
    world.preauth_key("k", |key| key.reusable = true);
    for number in 0..nodes {
        let mut key = [7; 32];
        key[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
        let digest = SecretHash::of(&number.to_string()).to_bytes();
        let id = data_encoding::HEXLOWER.encode(&digest);
        let name = format!("device{number}");
        // As long as that of a client on Linux.
        let raw = format!(
            r#"{{"IPNVersion":"1.102.5-t{id}","BackendLogID":"{id}","OS":"linux","OSVersion":"6.12.{number}","Container":false,"Env":"","Distro":"debian","DistroVersion":"13","DistroCodeName":"trixie","Desktop":false,"Package":"","DeviceModel":"","Hostname":"{name}","Machine":"x86_64","GoArch":"amd64","GoArchVar":"v1","GoVersion":"go1.26.8","RoutableIPs":null,"RequestTags":null,"Services":[{{"Proto":"peerapi4","Port":{0}}},{{"Proto":"peerapi6","Port":{0}}}],"Userspace":false,"UserspaceRouter":false,"AppConnector":false}}"#,
            1024 + number
        );
        let request = Register {
            machine: MachineKey::from_bytes(digest),
            key: NodeKey::from_bytes(key),
            expiry: RequestedExpiry::None,
            auth_key: Some(PresentedKey::WellFormed {
                prefix: "k".into(),
                hash: SecretHash::of("k"),
            }),
            hostinfo: Arc::new(Hostinfo {
                raw: raw.into(),
                hostname: name.into(),
                os: "linux".into(),
                ..Hostinfo::default()
            }),
            ..plain(1, 1)
        };
        world.join(request);
    }
    let data_dir = directory.path().join("data");
    let (mut store, _) = Store::open(&data_dir, 2 << 20).unwrap();
    store
        .commit(&world.records, &world.events, &world.model)
        .unwrap();
    let copy = directory.path().join("copy.redb");
    store.copy_to(&copy, &world.model).unwrap();
    drop(store);
    let source = Source {
        data_dir,
        server_url: "https://hearth.example".into(),
        settings: Vec::new(),
        recipients: Vec::new(),
    };
    (directory, source)
}

#[test]
fn a_backup_of_a_thousand_nodes_is_small() {
    for (nodes, database_most, backup_most) in
        [(100, 512 << 10, 100 << 10), (1000, 4 << 20, 700 << 10)]
    {
        let (directory, source) = tailnet(nodes);
        let copy = directory.path().join("copy.redb");
        let size = |path: &Path| path.metadata().unwrap().len();
        let about = About::of(&store::read_all(&copy).unwrap());
        assert_eq!(about.nodes, nodes);
        let begun = Instant::now();
        let archive = source
            .pack(&copy, &about, Timestamp::from_unix_ms(0))
            .unwrap();
        println!(
            "{nodes} nodes: database {} bytes, copy {} bytes, backup {} bytes in {:?}",
            size(&source.data_dir.join(FILE_NAME)),
            size(&copy),
            archive.len(),
            begun.elapsed()
        );
        assert!(size(&copy) < database_most, "{}", size(&copy));
        assert!(archive.len() < backup_most, "{}", archive.len());
    }
}
