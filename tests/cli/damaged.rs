//! Starts with a damaged configuration, a damaged certificate, and the URL of another server.

#![allow(
    clippy::disallowed_methods,
    reason = "nobody misses a file of a test, which reads the clock itself"
)]

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

use super::*;

/// A program that is ended with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a command with this configuration, and waits for these words on its output or in its log.
fn started(directory: &Path, command: &str, ready: &str) -> Program {
    let output = |name: &str| File::create(directory.join(name)).unwrap();
    let child = Command::new(PROGRAM)
        .args([command, "--config"])
        .arg(directory.join("hearth.toml"))
        .arg("--data-dir")
        .arg(directory)
        .stdin(Stdio::null())
        .stdout(output("banner"))
        .stderr(output("log"))
        .spawn()
        .unwrap();
    let program = Program(child);
    for _ in 0..1200 {
        if said(directory).contains(ready) {
            return program;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    panic!("{command} does not start: {}", said(directory));
}

fn said(directory: &Path) -> String {
    ["banner", "log"]
        .map(|name| std::fs::read_to_string(directory.join(name)).unwrap())
        .concat()
}

#[test]
fn the_server_starts_with_each_damaged_file_and_says_what_is_wrong() {
    let listen = "listen.http = \"127.0.0.1:0\"\nlisten.https = \"off\"\nlisten.stun = \"off\"\n";
    for (damage, place) in [
        ("node.approval = 1 1\n", "hearth.toml:4:"),
        ("node.expiry = \"-1d\"\n", "`node.expiry`"),
        ("policy.file = 5\n", "`policy.file`"),
        ("[node\napproval = true\n", "hearth.toml:4:"),
        ("[nodes]\napproval = true\n", "`nodes`"),
        (
            "listen.trusted_proxies = \"all\"\n",
            "`listen.trusted_proxies`",
        ),
        ("server_url = \"home\"\n", "`server_url`"),
        ("\u{0}\u{0}\n", "hearth.toml"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hearth.toml");
        std::fs::write(&file, format!("{listen}{damage}")).unwrap();
        let _program = started(directory.path(), "serve", " ready");
        let socket = directory.path().join("hearth.sock");
        let status = hearth(&socket, "status");
        let shown = words(&status.stdout);
        assert!(status.status.success(), "{damage:?}: {shown}");
        let mut warnings = shown.lines().filter(|line| line.starts_with("Warning"));
        assert!(
            warnings.any(|line| line.contains(place)),
            "{damage:?}: {shown}"
        );
        let log = said(directory.path());
        assert!(
            log.contains(place) && !log.contains("panicked"),
            "{damage:?}: {log}"
        );
    }
}

#[test]
fn a_damaged_certificate_is_replaced_and_its_hash_published() {
    let directory = tempfile::tempdir().unwrap();
    let settings =
        "listen.http = \"127.0.0.1:0\"\nlisten.https = \"127.0.0.1:0\"\nlisten.stun = \"off\"\n";
    std::fs::write(directory.path().join("hearth.toml"), settings).unwrap();
    let (certificate, key) = (
        directory.path().join("tls/cert.pem"),
        directory.path().join("tls/key.pem"),
    );
    let pin = || {
        let pem = std::fs::read_to_string(&certificate).unwrap();
        let lines = pem.lines().filter(|line| !line.starts_with("-----"));
        let der = data_encoding::BASE64
            .decode(lines.collect::<String>().as_bytes())
            .unwrap();
        HEXLOWER.encode(digest(&SHA256, &der).as_ref())
    };
    let first = {
        let _program = started(directory.path(), "derp", "relay ready");
        assert!(said(directory.path()).contains(&format!("sha256-raw:{}", pin())));
        pin()
    };
    for damaged in [&certificate, &key] {
        std::fs::write(damaged, "-----BEGIN NOTHING-----\n").unwrap();
        let _program = started(directory.path(), "derp", "relay ready");
        let said = said(directory.path());
        let mut lines = said.lines();
        let line = lines.find(|line| line.contains("the self-signed certificate is damaged"));
        assert!(line.is_some_and(|line| line.contains("ERROR")), "{said}");
        assert_ne!(pin(), first);
        assert!(said.contains(&format!("sha256-raw:{}", pin())), "{said}");
    }
    let _program = started(directory.path(), "derp", "relay ready");
    assert!(!said(directory.path()).contains("is damaged"));
}

/// Nobody asks for it: `hearth doctor` would ask again.
#[test]
fn a_url_that_leads_to_another_server_is_named_at_the_start() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in other.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let settings = format!(
        "server_url = \"http://{address}\"\nlisten.http = \"127.0.0.1:0\"\nlisten.https = \"off\"\nlisten.stun = \"off\"\n"
    );
    std::fs::write(directory.path().join("hearth.toml"), settings).unwrap();
    let title = "server_url leads to another server";
    let _program = started(directory.path(), "serve", title);
    let log = said(directory.path());
    let line = log.lines().find(|line| line.contains(title)).unwrap();
    assert!(
        line.contains("WARN") && line.contains("hearth doctor"),
        "{line}"
    );
    let status = hearth(&directory.path().join("hearth.sock"), "status");
    assert!(words(&status.stdout).contains(title));
}
