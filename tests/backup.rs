//! Backups of the program as a person makes them: automatic copies, one file over the socket and from the data directory,
//! restore, check and repair; and how large they are.

#![allow(
    clippy::disallowed_methods,
    reason = "nobody misses a file of a test, which reads the clock itself"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth::backup::whole::{About, Source};
use hearth::store::{self, FILE_NAME, Store, Verdict};
use hearth_core::age::{Encryptor, Lock};
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
    /// Who it runs as, if not as this process.
    user: Option<u32>,
}

impl Server {
    fn start(settings: &str) -> Self {
        Self::start_as(None, |_| settings.to_owned())
    }

    /// As root, as this user, who then owns the directory; settings may name files in it.
    fn start_as(user: Option<u32>, settings: impl FnOnce(&Path) -> String) -> Self {
        let mut server = Self {
            directory: tempfile::tempdir().unwrap(),
            child: None,
            user,
        };
        let settings = settings(server.directory.path());
        let listen = "listen.http = \"127.0.0.1:0\"\nlisten.https = \"127.0.0.1:0\"\nlisten.stun = \"off\"\n";
        fs::write(server.path("hearth.toml"), format!("{listen}{settings}")).unwrap();
        server.run();
        server
    }

    fn run(&mut self) {
        let mut command = match self.user {
            None => Command::new(PROGRAM),
            Some(user) => {
                // The directories above the program may be closed to others.
                let program = self.path("hearth");
                fs::copy(PROGRAM, &program).unwrap();
                for path in [self.directory.path(), &program, &self.path("hearth.toml")] {
                    std::os::unix::fs::chown(path, Some(user), Some(user)).unwrap();
                }
                let mut command = Command::new(program);
                command.uid(user).gid(user);
                command
            }
        };
        let child = command
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
    for user in ["anna", "bert", "carl"] {
        let before = server.copies();
        server.says(0, &["users", "create", user]);
        server.wait_for("a copy", || server.copies().last() != before.last());
        // The oldest is deleted once the newest is there.
        server.wait_for("the end of the oldest", || server.copies().len() <= 2);
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
    let running = server.says(1, &["check", "--data", data]);
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

/// A user without rights, if this process is root: as root hearth runs no programs.
fn nobody() -> Option<u32> {
    rustix::process::geteuid().is_root().then_some(65_534)
}

/// Writes a script into a directory; gives its path.
fn script(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("program");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_program_gets_the_encrypted_backup_as_the_user_of_hearth() {
    let key = hearth_core::age::Identity::random().unwrap();
    let recipient = key.recipient();
    let server = Server::start_as(nobody(), |directory| {
        let script = script(
            directory,
            "id -u >\"$1.user\"; cat >\"$1.new\" && mv \"$1.new\" \"$1\"",
        );
        let file = directory.join("got");
        format!(
            "backup.every = \"1s\"\nbackup.command = [{script:?}, {file:?}]\nbackup.recipients = [\"{recipient}\"]\n"
        )
    });
    let file = server.path("got");
    server.wait_for("the backup", || file.exists());
    let expected = nobody().unwrap_or(rustix::process::geteuid().as_raw());
    let user = fs::read_to_string(server.path("got.user")).unwrap();
    assert_eq!(user.trim(), expected.to_string());
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

#[test]
fn a_program_that_fails_is_reported_with_what_it_said() {
    let server = Server::start_as(nobody(), |directory| {
        let script = script(
            directory,
            "cat >/dev/null; echo no route to host >&2; exit 7",
        );
        format!("backup.every = \"1s\"\nbackup.command = [{script:?}]\n")
    });
    let reason = "exit status: 7: no route to host";
    server.wait_for("the failure", || {
        server.says(0, &["status"]).contains(reason)
    });
    let doctor = server.hearth(&["doctor", "-o", "json"]);
    let doctor: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let findings = doctor["findings"].as_array().unwrap();
    let failed = findings.iter().find(|one| one["id"] == "backup.failed");
    let detail = failed.unwrap()["detail"].as_str().unwrap();
    assert!(detail.contains(reason), "{detail}");
    // The copy was made all the same.
    assert_eq!(server.copies().len(), 1);
    assert!(server.hearth(&["health"]).status.success());
}

#[test]
fn the_doctor_notices_a_directory_before_a_copy_is_due() {
    let mut server = Server::start("backup.directory = \"/nowhere/hearth\"\n");
    let finding = |server: &Server, id: &str| {
        let doctor = server.hearth(&["doctor", "-o", "json"]);
        let doctor: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
        let findings = doctor["findings"].as_array().unwrap();
        findings.iter().find(|one| one["id"] == id).cloned()
    };
    let missing = finding(&server, "backup.directory").unwrap();
    let detail = missing["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("/nowhere/hearth: No such file"),
        "{detail}"
    );
    server.stop();
    let directory = server.path("copies");
    fs::create_dir(&directory).unwrap();
    let settings = fs::read_to_string(server.path("hearth.toml")).unwrap();
    let settings = settings.replace("/nowhere/hearth", directory.to_str().unwrap());
    fs::write(server.path("hearth.toml"), settings).unwrap();
    server.run();
    assert_eq!(finding(&server, "backup.directory"), None);
    let same = finding(&server, "backup.same-disk").unwrap();
    assert_eq!(same["level"], "warning");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
}

/// A terminal, and what was written to it.
struct Terminal {
    master: fs::File,
    child: Child,
    seen: Vec<u8>,
}

impl Terminal {
    /// Runs hearth on a terminal of its own.
    fn run(server: &Server, arguments: &[&str]) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = || {
            fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(&name)
                .unwrap()
        };
        let child = Command::new("setsid")
            .args(["--ctty", "--wait", PROGRAM])
            .args(arguments)
            .env("HEARTH_SOCKET", server.data().join("hearth.sock"))
            .current_dir(server.directory.path())
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .unwrap();
        Self {
            master: fs::File::from(master),
            child,
            seen: Vec::new(),
        }
    }

    /// Reads until this is shown, or the program has ended.
    fn wait_for(&mut self, text: &str) {
        let mut bytes = [0; 256];
        while !String::from_utf8_lossy(&self.seen).contains(text) {
            match self.master.read(&mut bytes) {
                Ok(read) if read > 0 => self.seen.extend_from_slice(&bytes[..read]),
                end => panic!("{text:?} is not shown: {end:?}, {:?}", self.seen()),
            }
        }
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// Types this once the program asks, so that it is not shown.
    fn answers(&mut self, question: &str, answer: &str) {
        self.wait_for(question);
        // The question comes before the terminal stops showing what is typed.
        let hides = || {
            let modes = rustix::termios::tcgetattr(&self.master)
                .unwrap()
                .local_modes;
            !modes.contains(rustix::termios::LocalModes::ECHO)
        };
        let begun = Instant::now();
        while !hides() {
            assert!(begun.elapsed() < PATIENCE, "what is typed is shown");
            std::thread::sleep(LOOK);
        }
        self.seen.clear();
        self.master.write_all(answer.as_bytes()).unwrap();
    }

    /// The exit code, and what was shown at the end.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        let modes = rustix::termios::tcgetattr(&self.master)
            .unwrap()
            .local_modes;
        assert!(
            modes.contains(rustix::termios::LocalModes::ECHO),
            "it shows what is typed again"
        );
        let mut bytes = [0; 4096];
        // Without a program on the terminal reading fails once all was read.
        while let Ok(read) = self.master.read(&mut bytes) {
            self.seen.extend_from_slice(&bytes[..read]);
        }
        (code, self.seen())
    }
}

#[test]
fn a_passphrase_is_asked_for_twice_and_not_shown() {
    let server = Server::start("");
    // A sheet alone encrypts nothing, which without optimisation takes a minute.
    let mut terminal = Terminal::run(&server, &["backup", "--encrypt", "--sheet"]);
    terminal.answers("Passphrase: ", "a long passphrase\n");
    terminal.answers("The same again: ", "a long passphrase\n");
    let (code, seen) = terminal.end();
    assert_eq!(code, Some(0), "{seen}");
    assert!(!seen.contains("long passphrase"), "{seen}");
    server.says(0, &["backup", "plain.tar.zst"]);
    let mut encrypted = Vec::new();
    let lock = Lock::Passphrase {
        passphrase: "a long passphrase",
        work_factor: 2,
    };
    let mut encryptor = Encryptor::new(&mut encrypted, &lock).unwrap();
    let plain = fs::read(server.path("plain.tar.zst")).unwrap();
    encryptor.write_all(&plain).unwrap();
    encryptor.finish().unwrap();
    fs::write(server.path("b.tar.zst.age"), encrypted).unwrap();
    let mut terminal = Terminal::run(&server, &["restore", "--data-dir", "new", "b.tar.zst.age"]);
    terminal.answers("Passphrase of the backup: ", "a long passphrase\n");
    let (code, seen) = terminal.end();
    assert!(code == Some(0) && !seen.contains("long"), "{seen}");
    assert!(server.path("new").join(FILE_NAME).exists());
    // What differs, and Ctrl-C, make no backup.
    for (first, second, expected) in [
        ("one\n", Some("other\n"), "the passphrases differ"),
        ("\n", None, "the passphrase is empty"),
        ("on\u{3}", None, "interrupted"),
    ] {
        let mut terminal = Terminal::run(&server, &["backup", "--encrypt", "none.age"]);
        terminal.answers("Passphrase: ", first);
        if let Some(second) = second {
            terminal.answers("The same again: ", second);
        }
        let (code, seen) = terminal.end();
        assert!(
            code == Some(1) && seen.contains(expected),
            "{code:?} {seen}"
        );
        assert!(!server.path("none.age").exists());
    }
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
