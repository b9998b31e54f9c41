//! The program as a person uses it: a server, and commands that talk to it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

#[path = "cli/check_database.rs"]
mod check_database;
#[path = "cli/damaged.rs"]
mod damaged;
#[path = "cli/lookup.rs"]
mod lookup;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hearth");
/// The same number on all processors. Source: signal(7).
const SIGABRT: i32 = 6;

struct Server {
    child: Child,
    directory: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let child = Command::new(PROGRAM)
            .args(["serve", "--http", "127.0.0.1:0", "--https", "off"])
            .args(["--stun", "off", "--data-dir"])
            .arg(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, directory };
        for _ in 0..400 {
            if server.hearth("health").status.success() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("the server does not answer");
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("hearth.sock")
    }

    fn hearth(&self, line: &str) -> Output {
        hearth(&self.socket(), line)
    }

    /// Standard output of a command that succeeds.
    fn good(&self, line: &str) -> String {
        let output = self.hearth(line);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{line}: {}",
            words(&output.stderr)
        );
        words(&output.stdout)
    }

    /// Standard error of a command that is refused.
    fn refused(&self, line: &str) -> String {
        let output = self.hearth(line);
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert_eq!(words(&output.stdout), "", "{line}");
        words(&output.stderr)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hearth(socket: &Path, line: &str) -> Output {
    Command::new(PROGRAM)
        .env("HEARTH_SOCKET", socket)
        .args(line.split_whitespace())
        .output()
        .unwrap()
}

fn write(path: &Path, text: &str) {
    hearth::files::replace(path, text.as_bytes()).unwrap();
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|fault| panic!("{fault}: {text}"))
}

#[test]
fn a_household_is_run_from_the_command_line() {
    let server = Server::start();
    let invite = server.hearth("invite");
    let line = words(&invite.stdout);
    assert!(line.starts_with("tailscale login --login-server=http://127.0.0.1:"));
    assert_eq!(
        line.lines().count(),
        1,
        "only the line is on standard output"
    );
    assert!(words(&invite.stderr).contains('█'), "the code is beside it");
    assert_eq!(json(&server.good("users list -o json"))[0]["name"], "home");

    server.good("users create anna -d Anna");
    assert!(server.refused("invite").contains("home (1), anna (2)"));
    assert!(
        server
            .good("invite --user anna -o json-line")
            .contains("\"joinUrl\"")
    );
    server.good("users rename anna -r berta");
    assert!(server.good("users list").contains("berta"));
    server.good("users destroy -i 2");
    assert!(
        server
            .refused("users delete berta")
            .contains("no user `berta`")
    );

    let key = server.good("preauthkeys create --user home --reusable -e 2d");
    assert_eq!((key.len(), key.lines().count()), (89, 1), "{key}");
    assert!(key.starts_with("hskey-auth-"));
    let keys = json(&server.good("preauthkeys list -o json"));
    let last = keys.as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["reusable"], true);
    let id = last["id"].as_str().unwrap();
    server.good(&format!("preauthkeys expire {id}"));
    server.good(&format!("preauthkeys delete --id {id}"));
    assert!(
        server
            .refused(&format!("preauthkeys delete {id}"))
            .contains("key not found")
    );
    let never = json(&server.good("preauthkeys create --user home -e 0 -o json"));
    assert_eq!(never["expiration"], serde_json::Value::Null);

    let key = server.good("apikeys create");
    let prefix = key.get(10..22).unwrap();
    assert!(server.good("apikeys list").contains(prefix));
    server.good(&format!("apikeys expire --prefix {prefix}"));
    server.good("apikeys delete 1");
    assert_eq!(
        json(&server.good("apikeys list -o json")),
        serde_json::json!([])
    );

    assert_eq!(
        json(&server.good("nodes list -o json")),
        serde_json::json!([])
    );
    assert!(server.refused("nodes show nas").contains("no node `nas`"));
    assert!(server.refused("nodes delete 7").contains("node not found"));
    assert!(
        server
            .refused("pending approve nobody")
            .contains("`hearth pending list`")
    );
    assert_eq!(
        json(&server.good("pending list -o json")),
        serde_json::json!([])
    );
    assert_eq!(json(&server.good("status -o json"))["users"], 1);
    assert!(server.good("status").contains("http://127.0.0.1:"));
    let fault = server.hearth("nodes show 7 -o json-line");
    assert_eq!(words(&fault.stderr), "{\"error\":\"node not found\"}\n");
}

const WIREGUARD_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

#[test]
fn a_wireguard_peer_is_added_and_looked_after_like_every_node() {
    let server = Server::start();
    server.good("users create anna");
    server.good("users create ben");
    let add =
        format!("nodes add-wireguard berlin --key {WIREGUARD_KEY} --endpoint 203.0.113.5:51820");
    assert!(server.refused(&add).contains("anna (1), ben (2)"));
    let flags = "--user anna --ip 100.99.0.7 --routes 10.9.0.0/16 --exit-node --dns 10.9.0.1";
    let added = server.good(&format!("{add} {flags}"));
    assert!(added.contains("added berlin as node 1 with 100.99.0.7 and fd7a:"));
    assert!(server.good("nodes list").contains("WireGuard"));
    let card = server.good("nodes show berlin");
    for part in ["203.0.113.5:51820", "10.9.0.1", "10.9.0.0/16", "anna"] {
        assert!(card.contains(part), "{part}: {card}");
    }

    let routes = server.good("nodes list-routes");
    let row = |table: &str, route: &str| {
        let row = table.lines().find(|line| line.contains(route)).unwrap();
        row.rsplit("  ").next().unwrap().to_owned()
    };
    assert_eq!(row(&routes, "10.9.0.0/16"), "active");
    let approved = server.good("nodes approve-routes berlin -r 0.0.0.0/0,10.8.0.0/16");
    assert!(
        approved.contains("0.0.0.0/0, 10.8.0.0/16, ::/0"),
        "{approved}"
    );
    let list = server.hearth("nodes list-routes -i 1");
    let routes = words(&list.stdout);
    assert_eq!(row(&routes, "10.9.0.0/16"), "needs approval");
    assert_eq!(row(&routes, "10.8.0.0/16"), "not advertised");
    let command = "nodes approve-routes -i 1 --all-offered";
    assert!(words(&list.stderr).contains(command));
    assert!(
        server
            .good("status")
            .contains("`hearth nodes list-routes -i 1`")
    );
    server.good(command);
    assert!(!server.good("status").contains("list-routes"));
    assert!(
        server
            .refused("nodes approve-routes 1 -r lan")
            .contains("invalid route")
    );
    let json_list = json(&server.good("nodes list-routes -o json"));
    assert_eq!(json_list[0]["givenName"], "berlin");

    assert!(
        server
            .good("nodes tag berlin -t tag:b,tag:a")
            .contains("tag:a, tag:b")
    );
    assert!(
        server
            .good("nodes move berlin -u ben")
            .contains("belongs to ben")
    );
    let moved = server.good("nodes set-ip berlin --ipv4 100.99.0.8");
    assert!(moved.contains("now has 100.99.0.8 and fd7a:"));
    assert!(
        server
            .refused("nodes set-ip 1 --ipv4 10.0.0.1")
            .contains("100.64.0.0/10")
    );
    assert!(
        server
            .good("nodes backfill-ips")
            .contains("inside the prefixes")
    );
    server.good("nodes disapprove berlin");
    assert!(server.good("nodes list").contains("needs approval"));
    assert!(server.good("status").contains("`hearth nodes approve 1`"));
    server.good("nodes approve berlin");
    assert!(!server.good("status").contains("Waiting"));
    assert!(server.refused("nodes expire berlin").contains("WireGuard"));

    assert!(server.good("users set-role ben admin").contains("admin"));
    server.good("users set-expiry ben 90d");
    let users = server.good("users list");
    let ben = users.lines().find(|line| line.contains("ben")).unwrap();
    assert!(ben.contains("admin") && ben.contains("90d"), "{users}");
    let key = json(&server.good("preauthkeys create -u ben --preauthorized=false -o json"));
    assert_eq!(key["preauthorized"], false);
}

#[test]
fn the_exit_code_tells_a_refusal_from_a_line_that_is_not_understood() {
    let nowhere = Path::new("/nonexistent/hearth.sock");
    let refused = hearth(nowhere, "status");
    assert_eq!(refused.status.code(), Some(1));
    assert!(words(&refused.stderr).contains("Is `hearth serve` running?"));
    assert_eq!(hearth(nowhere, "status --colour").status.code(), Some(2));
    assert_eq!(hearth(nowhere, "version").status.code(), Some(0));
}

#[test]
fn check_names_the_place_of_each_fault() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hearth.toml");
    write(&file, "[listen]\nhtpp = \":80\"\n");
    let check = |file: &Path| {
        hearth(
            Path::new("/s"),
            &format!("check --config {}", file.display()),
        )
    };
    let output = check(&file);
    assert_eq!(output.status.code(), Some(1));
    let fault = format!(
        "{}:2:1: unknown key `listen.htpp`; did you mean `listen.http`?",
        file.display()
    );
    assert!(
        words(&output.stdout).contains(&fault),
        "{}",
        words(&output.stdout)
    );
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("hearth.example.toml");
    assert_eq!(check(&example).status.code(), Some(0));
    assert_eq!(
        check(&directory.path().join("none.toml")).status.code(),
        Some(1)
    );
}

#[test]
fn a_policy_is_checked_without_a_server_and_by_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let nowhere = at("socket");
    let template = hearth(&nowhere, "policy template family");
    assert_eq!(template.status.code(), Some(0));
    write(&at("family"), &words(&template.stdout));
    write(&at("bad"), "{\n  \"acls\": 5,\n}");

    let check = |name: &str| hearth(&nowhere, &format!("policy check {}", at(name).display()));
    let good = check("family");
    assert_eq!(good.status.code(), Some(0), "{}", words(&good.stderr));
    assert!(words(&good.stderr).contains("No hearth server is running here"));
    let bad = check("bad");
    assert_eq!(bad.status.code(), Some(1));
    let told = words(&bad.stderr);
    assert!(told.contains("bad:2:11: expected a list"), "{told}");
    assert!(told.contains("\n    \"acls\": 5,"), "{told}");

    for (name, code) in [("family", 0), ("bad", 1), ("missing", 1)] {
        let config = format!("[policy]\nfile = {:?}\n", at(name));
        write(&at("hearth.toml"), &config);
        let line = format!("check --config {}", at("hearth.toml").display());
        let output = hearth(&nowhere, &line);
        let told = words(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert_eq!(
            told.contains(&format!("{}:", at(name).display())),
            code == 1,
            "{told}"
        );
    }
}

#[test]
fn a_policy_is_set_shown_and_set_back_from_the_command_line() {
    let server = Server::start();
    assert!(
        server
            .good("status")
            .contains("none; every device can reach every other")
    );
    assert!(server.refused("policy get").contains("no policy is set"));
    let file = server.directory.path().join("p.hujson");
    let set = format!("policy set -f {}", file.display());
    for text in ["{\"acls\": []}", "{} // open"] {
        write(&file, text);
        server.good(&set);
        assert_eq!(server.good("policy get"), format!("{text}\n"));
    }
    assert!(server.good("status").contains("Policy         version 2"));
    assert_eq!(
        server.good("policy rollback"),
        "version 3 of the policy is in effect\n"
    );
    assert_eq!(
        json(&server.good("policy history -o json"))
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(server.good("policy get --version 2"), "{} // open\n");
    let why = server.good("policy why 100.64.0.1 100.64.0.2:22");
    assert_eq!(
        why,
        "100.64.0.1 to 100.64.0.2 port 22: denied: no rule has this source\n"
    );
    write(
        &file,
        "{\n  \"tests\": [{\"src\": \"x@\", \"accept\": [\"100.64.0.1:1\"]}],\n}",
    );
    let refusal = server.refused(&set);
    assert!(
        refusal.contains("p.hujson:2:3: test(s) failed\n    \"tests\": [{"),
        "{refusal}"
    );
}

#[test]
fn a_policy_template_has_the_users_of_the_server_and_can_be_set_at_once() {
    let server = Server::start();
    for user in ["lm", "max@example.com"] {
        server.good(&format!("users create {user}"));
    }
    let refusal = server.refused("users create LM@");
    assert!(refusal.contains("already exists"), "{refusal}");
    let file = server.directory.path().join("p.hujson");
    for name in ["family", "guests", "iot"] {
        let text = server.good(&format!("policy template {name}"));
        write(&file, &text);
        server.good(&format!("policy set {}", file.display()));
        let of_server = text.contains("[\"lm@\"]") && text.contains("[\"max@example.com\"]");
        assert_eq!(of_server, name == "family", "{text}");
        assert!(!text.contains("anna@"), "{text}");
    }
    write(
        &file,
        "{\n  \"groups\": {\"group:a\": [\"nobody@\"]},\n  \"acls\": [],\n}",
    );
    for command in ["check", "set"] {
        let output = server.hearth(&format!("policy {command} {}", file.display()));
        assert_eq!(output.status.code(), Some(0));
        let warnings = words(&output.stderr);
        let warning = "p.hujson:2:26: no user is called \"nobody@\" (users: lm@, max@example.com)";
        assert!(warnings.starts_with("Warning: "), "{warnings}");
        assert!(warnings.contains(warning), "{warnings}");
    }
}

/// This build unwinds, as OpenWrt's does. The one task that looks names up panics, because the system gives
/// no thread of such a size; the rest of the server would go on without it.
#[test]
fn a_panic_in_a_task_ends_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(PROGRAM)
        .args(["serve", "--http", "127.0.0.1:0", "--https", "off"])
        .args(["--stun", "off", "--server-url", "http://name.invalid"])
        .arg("--data-dir")
        .arg(directory.path())
        .env("RUST_MIN_STACK", (usize::MAX / 4).to_string())
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = (0..400).find_map(|_| {
        std::thread::sleep(Duration::from_millis(25));
        child.try_wait().unwrap()
    });
    let _ = child.kill();
    let said = words(&child.wait_with_output().unwrap().stderr);
    let signal = ended.and_then(|status| status.signal());
    assert_eq!(signal, Some(SIGABRT), "it did not end by itself: {said}");
    assert!(said.contains("panicked at"), "no word of why: {said}");
}

#[test]
fn the_board_and_its_limits_are_shown_without_a_server_and_by_one() {
    let nowhere = Path::new("/nonexistent/hearth.sock");
    let good = |line: &str| {
        let output = hearth(nowhere, line);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{line}: {}",
            words(&output.stderr)
        );
        words(&output.stdout)
    };
    let json = |line: &str| -> serde_json::Value { serde_json::from_str(&good(line)).unwrap() };
    let shown = json("board show glinet,gl-mt300n-v2 -o json");
    assert_eq!(shown["board"]["rust_target"], "mipsel-unknown-linux-musl");
    assert_eq!(shown["class"], "memory-128");
    assert_eq!(shown["limits"]["flush_interval"], "2h");
    let needs = shown["needs"].as_object().unwrap().values();
    let total: u64 = needs.map(|bytes| bytes.as_u64().unwrap()).sum();
    assert!(total <= shown["budget"].as_u64().unwrap());
    let chosen = json("board --board memory-64 -o json");
    assert_eq!(
        (&chosen["name"], &chosen["board"]),
        (&"memory-64".into(), &serde_json::Value::Null)
    );
    let text = good("board show glinet,gl-mt300n-v2");
    assert!(text.contains("has rtc            no"), "{text}");
    assert!(!text.contains("[]") && !text.contains("null"), "{text}");
    assert!(good("board list").contains("raspberrypi,5-model-b"));
    let output = hearth(nowhere, "board show toaster");
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output.stderr).contains("no board `toaster`"));

    // What this machine is shows in all places alike.
    let server = Server::start();
    let here = json("board -o json");
    let status: serde_json::Value = serde_json::from_str(&server.good("status -o json")).unwrap();
    assert_eq!(status["board"]["name"], here["name"]);
    assert_eq!(status["board"]["memoryBudget"], here["budget"]);
    let line = server.good("status");
    assert!(line.contains(here["name"].as_str().unwrap()), "{line}");
}

/// A command on a terminal of its own, where these keys are typed: its exit code and all that is shown.
fn on_terminal(
    socket: &Path,
    line: &str,
    keys: &str,
    columns: u16,
    no_color: bool,
) -> (i32, String) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{Winsize, tcsetwinsize};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let size = Winsize {
        ws_row: 40,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&master, size).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .env("HEARTH_SOCKET", socket)
        .env("TERM", "xterm")
        .env("NO_COLOR", if no_color { "1" } else { "" })
        .args(line.split_whitespace())
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut master = File::from(master);
    master.write_all(keys.as_bytes()).unwrap();
    let mut shown = Vec::new();
    // Once nobody has the other side open, reading fails.
    let _ = master.read_to_end(&mut shown);
    let status = child.wait().unwrap();
    (status.code().unwrap(), words(&shown).replace('\r', ""))
}

#[test]
fn destructive_commands_ask_on_a_terminal_and_only_there() {
    let server = Server::start();
    let socket = server.socket();
    for name in ["anna", "ben", "carl"] {
        server.good(&format!("users create {name}"));
    }
    let add = "nodes add-wireguard berlin --endpoint 203.0.113.5:51820 --user ben --key";
    server.good(&format!("{add} {WIREGUARD_KEY}"));
    server.good("preauthkeys create --user anna");

    let ask = |line: &str, keys: &str| on_terminal(&socket, line, keys, 200, true);
    let (code, shown) = ask("users delete anna", "n\n");
    assert_eq!(code, 1, "{shown}");
    assert!(
        shown.contains("This will delete user anna (1). Continue? [y/N]"),
        "{shown}"
    );
    assert!(
        shown.contains("Error: not confirmed; nothing was changed"),
        "{shown}"
    );
    assert!(server.good("users list").contains("anna"));
    for (line, question) in [
        ("nodes delete 1", "delete node 1 (berlin, owner ben)"),
        ("nodes delete berlin", "its device must join again"),
        (
            "nodes move berlin -u carl",
            "move node 1 (berlin, owner ben) to carl",
        ),
        ("nodes expire berlin", "expire the key of node 1"),
        ("nodes disapprove berlin", "cut it off from all peers"),
        ("nodes backfillips", "assign new addresses"),
        ("preauthkeys expire 1", "expire preauth key 1"),
        ("preauthkeys delete 1", "delete preauth key 1"),
        ("apikeys expire 1", "expire API key 1"),
        ("apikeys delete abcdefghijkl", "delete API key abcdefghijkl"),
        ("dns delete printer", "delete the DNS records printer"),
        (
            "policy rollback",
            "replace the policy with the version before it",
        ),
    ] {
        let (code, shown) = ask(line, "\n");
        assert_eq!(code, 1, "{line}: {shown}");
        assert!(shown.contains(question), "{line}: {shown}");
        assert!(shown.contains("Continue? [y/N]"), "{line}: {shown}");
    }
    assert!(server.good("nodes list").contains("berlin"));

    assert_eq!(ask("users delete carl", "yes\n").0, 0);
    let (code, shown) = ask("nodes delete berlin --force", "");
    assert_eq!((code, shown.contains("Continue?")), (0, false), "{shown}");
    let quiet = server.hearth("users delete anna");
    assert_eq!(quiet.status.code(), Some(0), "scripts are not asked");
    let users = server.good("users list");
    assert!(users.contains("ben") && !users.contains("anna") && !users.contains("carl"));
}

#[test]
fn colours_and_the_width_are_those_of_the_terminal() {
    let server = Server::start();
    let socket = server.socket();
    server.good("users create anna");
    let add = "nodes add-wireguard berlin --endpoint 203.0.113.5:51820 --key";
    server.good(&format!("{add} {WIREGUARD_KEY}"));
    server.good("nodes disapprove berlin");
    let show = |columns, no_color| on_terminal(&socket, "nodes list", "", columns, no_color).1;
    let plain = server.good("nodes list");
    assert!(!plain.contains('\u{1b}'));
    assert_eq!(plain.lines().count(), 2, "{plain}");
    assert_eq!(show(200, true), plain, "NO_COLOR");
    let colored = show(200, false);
    assert!(
        colored.contains("\u{1b}[33mneeds approval\u{1b}[0m"),
        "{colored}"
    );
    let narrow = show(70, true);
    assert!(narrow.lines().count() > 2, "{narrow}");
    assert!(
        narrow.lines().all(|line| line.chars().count() <= 70),
        "{narrow}"
    );
    assert_eq!(
        narrow.split_whitespace().count(),
        plain.split_whitespace().count(),
        "nothing is left out"
    );
    let invite = on_terminal(&socket, "invite", "", 200, false).1;
    assert!(invite.contains("\u{1b}[97;40m█"), "{invite}");
    let fault = on_terminal(&socket, "nodes show x", "", 80, false).1;
    assert!(fault.contains("\u{1b}[31mError:\u{1b}[0m"), "{fault}");
}

#[test]
fn results_come_as_yaml_too() {
    let server = Server::start();
    server.good("users create anna");
    let yaml = server.good("users list -o yaml");
    assert!(yaml.starts_with("- createdAt: \"20"), "{yaml}");
    assert!(yaml.contains("\n  id: \"1\"\n"), "{yaml}");
    assert!(yaml.contains("\n  name: anna\n"), "{yaml}");
    let fault = server.hearth("nodes show 7 -o yaml");
    assert_eq!(words(&fault.stderr), "error: \"node not found\"\n");
}

#[test]
fn errors_end_with_the_command_that_helps() {
    let server = Server::start();
    assert!(
        server
            .refused("pending approve x")
            .contains("`hearth pending list`")
    );
    server.good("users create anna");
    server.good("users create ben");
    for (line, help) in [
        ("nodes show nas", "see `hearth nodes list`"),
        ("nodes show 7", "See `hearth nodes list`."),
        ("nodes list --user x", "see `hearth users list`"),
        (
            "pending approve x",
            "add `--user NAME` to choose the owner; users: home (1), anna (2), ben (3)",
        ),
        (
            "pending approve --last",
            "`tailscale login --login-server=http://127.0.0.1:",
        ),
        ("preauthkeys delete 7", "See `hearth preauthkeys list`"),
        ("help nonsense", "see `hearth help`"),
    ] {
        let said = server.refused(line);
        assert!(said.contains(help), "{line}: {said}");
    }
}

#[test]
fn nodes_are_renamed_in_either_spelling() {
    let server = Server::start();
    server.good("users create anna");
    let add = "nodes add-wireguard berlin --endpoint 203.0.113.5:51820 --key";
    server.good(&format!("{add} {WIREGUARD_KEY}"));
    assert_eq!(
        server.good("nodes rename berlin paris"),
        "renamed node 1 to paris\n"
    );
    assert_eq!(
        server.good("nodes rename -i paris rome"),
        "renamed node 1 to rome\n"
    );
    assert!(server.good("nodes ls").contains("rome"));
}

#[test]
fn a_mistyped_address_is_refused() {
    let server = Server::start();
    for value in [
        "1.2.3",
        "300.1.1.1",
        "192.168.1.300",
        "192.168.1.2o",
        "1.2.3.4/24",
    ] {
        let said = server.refused(&format!("dns add printer {value}"));
        assert!(said.contains("invalid IP address"), "{said}");
    }
    assert_eq!(
        json(&server.good("dns list -o json")),
        serde_json::json!([])
    );
    server.good("dns add printer 192.168.1.20");
    server.good("dns remove printer");
}

#[test]
fn api_keys_have_scopes_and_changes_are_in_the_audit_log() {
    let server = Server::start();
    server.good("apikeys create --scope devices:core:read --scope dns");
    let list = server.good("apikeys list");
    assert!(list.lines().next().unwrap().contains("Scopes"), "{list}");
    let unknown = server.hearth("apikeys create --scope devices");
    assert_eq!(unknown.status.code(), Some(2));
    let audit = json(&server.good("audit --limit 5 -o json"));
    assert!(audit["logs"].is_array() && audit["reports"].is_array());
    server.good("audit");
}

#[test]
fn topics_and_commands_are_explained_without_a_server() {
    let nowhere = Path::new("/nonexistent/hearth.sock");
    let good = |line: &str| {
        let output = hearth(nowhere, line);
        assert_eq!(output.status.code(), Some(0), "{line}");
        words(&output.stdout)
    };
    let all = good("help");
    for topic in ["first-device", "phone", "exit-node", "troubleshooting"] {
        assert!(all.contains(topic), "{topic}: {all}");
        assert!(good(&format!("help {topic}")).contains("    hearth "));
    }
    let dns = good("help dns");
    assert!(dns.contains("hearth dns add printer") && dns.contains("`hearth dns --help`"));
    assert_eq!(good("help nodes rename"), good("nodes rename --help"));
    assert!(good("--help").contains("Devices and users:\n  nodes "));
}

#[test]
fn words_that_are_nearly_right_are_suggested_at_all_levels() {
    let nowhere = Path::new("/nonexistent/hearth.sock");
    for (line, tip) in [
        ("nodse", "'nodes'"),
        ("nodes lst", "'list'"),
        ("preauthkeys creat", "'create'"),
        ("dns delet", "'delete'"),
        ("nodes list --usr anna", "'--user'"),
        ("status --outptu json", "'--output'"),
        ("status -o jsn", "'json'"),
        ("users set-role anna admn", "'admin'"),
    ] {
        let output = hearth(nowhere, line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        let said = words(&output.stderr);
        assert!(
            said.contains("similar") && said.contains(tip),
            "{line}: {said}"
        );
    }
}

#[test]
fn bash_completes_what_the_program_says() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("hearth.bash");
    let nowhere = Path::new("/nonexistent/hearth.sock");
    write(&script, &words(&hearth(nowhere, "completion bash").stdout));
    let complete = |line: &str| {
        let ask = format!(
            "source '{}'; COMP_LINE='{PROGRAM} {line}'; COMP_POINT=${{#COMP_LINE}}; _hearth; printf '%s ' \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let output = Command::new("bash")
            .args(["--norc", "-c", &ask])
            .env("HEARTH_SOCKET", nowhere)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", words(&output.stderr));
        words(&output.stdout).trim().to_owned()
    };
    assert_eq!(complete("preauth"), "preauthkeys");
    assert_eq!(complete("users cr"), "create");
    assert_eq!(complete("status --outp"), "--output");
    assert_eq!(complete("apikeys create --scope policy_file:r"), "read");
    for shell in ["zsh", "fish"] {
        let script = hearth(nowhere, &format!("completion {shell}"));
        assert!(words(&script.stdout).contains("__complete"), "{shell}");
    }
}
