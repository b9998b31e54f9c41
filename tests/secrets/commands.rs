//! Every command of the command line, in each output format.

use std::collections::BTreeSet;

use clap::CommandFactory as _;
use data_encoding::BASE64;
use hearth::cli::Args;

use crate::device::Devices;
use crate::secret::{Answers, Secrets, keys_in};
use crate::server::Server;

/// The formats. Each line runs once in each; `{n}` is the number of the format.
const FORMATS: [&str; crate::NODES] = ["json", "table", "yaml"];

/// Commands that run until they are stopped: the test has started them.
const RUNNING: [&str; 2] = ["serve", "derp"];

/// Commands whose exit code depends on the machine.
const MAY_FAIL: [&str; 1] = ["doctor"];

/// The lines, in an order in which they succeed. `{pending}` and `{ssh}` are the ids of a new registration and a new
/// SSH connection that wait, `{key}` is a number of a preauth key, `{api}` one of an API key, `{dir}` the server's
/// directory.
const LINES: &[&str] = &[
    "users create user{n} -d Anna -e anna@example.org",
    "users list",
    "users set-role user{n} admin",
    "users set-expiry user{n} 90d",
    "users rename user{n} -r renamed{n}",
    "users delete renamed{n}",
    "preauthkeys create --user home --reusable -e 2d",
    "preauthkeys list",
    "preauthkeys expire {key}",
    "preauthkeys delete {key}",
    "apikeys create -s devices:core:read -s policy_file",
    "apikeys list",
    "apikeys expire {api}",
    "apikeys delete {api}",
    "invite --user home",
    "nodes add-wireguard wg{n} --key {wireguard} --endpoint 203.0.113.5:51820 --user home --routes 10.9.{n}.0/24",
    "nodes list",
    "nodes show wg{n}",
    "nodes rename wg{n} disk{n}",
    "nodes list-routes",
    "nodes approve-routes disk{n} -r 10.9.{n}.0/24",
    "nodes tag disk{n} -t tag:a",
    "nodes move disk{n} -u home",
    "nodes set-ip disk{n} --ipv4 100.99.0.1{n}",
    "nodes backfill-ips",
    "nodes disapprove disk{n}",
    "nodes approve disk{n}",
    "nodes delete disk{n}",
    "nodes register -u home -k {pending}",
    "nodes c2n dev{n} echo",
    "nodes ping dev{n}",
    "nodes ping dev{n} 100.64.0.1",
    "nodes update dev{n}",
    "nodes wol dev{n} 00:11:22:33:44:55",
    "nodes cert dev{n} dev{n}.hearth.internal",
    "nodes open dev{n} https://example.org/",
    "nodes attributes dev{n} custom:a=1",
    "pending list",
    "pending approve {pending} --user home",
    "pending reject {pending}",
    "auth register --user home --auth-id {pending}",
    "auth approve --auth-id {pending}",
    "auth reject --auth-id {pending}",
    "ssh list",
    "ssh approve {ssh}",
    "ssh reject {ssh}",
    "policy check {dir}/policy{n}",
    "policy set {dir}/policy{n}",
    "policy get",
    "policy history",
    "policy rollback",
    "policy why 100.64.0.1 100.64.0.2:22",
    "policy template family",
    "policy eval",
    "dns add printer{n} 192.168.1.2{n}",
    "dns list",
    "dns delete printer{n}",
    "wan",
    "wan refresh",
    "derp status",
    "board",
    "board list",
    "board show memory-128",
    "check --config {dir}/hearth.toml",
    "completion bash",
    "__complete -- pending approve t",
    "help",
    "version",
    "health",
    "doctor",
    "backup -r {recipient} {dir}/backup{n}",
    "backup --sheet -r {recipient}",
    "restore --data-dir {dir}/restored{n} --identity {dir}/identity {dir}/backup{n}",
    "check --data {dir}/restored{n}",
    "repair {dir}/restored{n}",
    "nodes expire dev{n}",
    "status",
    "audit",
];

/// Runs all of them.
pub async fn run(
    server: &Server,
    relay: &Server,
    devices: &mut Devices,
    answers: &mut Answers,
    secrets: &mut Secrets,
) {
    assert_every_command_has_a_line();
    let (mut keys, mut api_keys) = (Vec::new(), Vec::new());
    for line in LINES {
        for (n, format) in FORMATS.iter().enumerate() {
            let mut text = line
                .replace("{n}", &n.to_string())
                .replace("{key}", keys.get(n).map_or("", String::as_str))
                .replace("{api}", api_keys.get(n).map_or("", String::as_str))
                .replace("{recipient}", crate::RECIPIENT)
                .replace("{wireguard}", &BASE64.encode(&[100 + n as u8; 32]))
                .replace(
                    "{dir}",
                    server.path("").to_str().unwrap().trim_end_matches('/'),
                );
            if text.contains("{pending}") {
                text = text.replace("{pending}", &devices.pending(secrets).await);
            }
            if text.contains("{ssh}") {
                text = text.replace("{ssh}", &devices.ssh_check(secrets).await);
            }
            one(
                server,
                line,
                &format!("-o {format} {text}"),
                answers,
                secrets,
            )
            .await;
            match line.split_once(" create") {
                Some(("preauthkeys", _)) => keys.push(newest(server, "preauthkeys").await),
                Some(("apikeys", _)) => api_keys.push(newest(server, "apikeys").await),
                _ => {}
            }
        }
    }
    one(relay, "derp status", "derp status", answers, secrets).await;
}

async fn one(
    server: &Server,
    line: &str,
    typed: &str,
    answers: &mut Answers,
    secrets: &mut Secrets,
) {
    let name = path_of(line).join(" ");
    let output = server.hearth(typed).await;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    let may_fail = MAY_FAIL.contains(&&*name);
    assert!(output.status.success() || may_fail, "{typed}: {text}");
    let made = answers.add(&name, &text);
    if !keys_in(&text).is_empty() {
        secrets.key(made);
    }
}

/// The id of the newest of these keys.
async fn newest(server: &Server, keys: &str) -> String {
    let list = server.good(&format!("{keys} list -o json")).await;
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let ids = list.as_array().unwrap().iter();
    let ids = ids.map(|key| key["id"].as_str().unwrap().parse::<u64>().unwrap());
    ids.max().unwrap().to_string()
}

fn assert_every_command_has_a_line() {
    let all: BTreeSet<String> = commands(&Args::command(), &[]).into_iter().collect();
    let tried = LINES.iter().map(|line| path_of(line).join(" "));
    let tried: BTreeSet<String> = tried.chain(RUNNING.map(str::to_owned)).collect();
    assert!(all.len() > 60, "{all:?}");
    assert_eq!(
        all.difference(&tried).collect::<Vec<_>>(),
        [""; 0],
        "have no line here"
    );
}

/// The commands that can be run.
fn commands(command: &clap::Command, before: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    if !command.is_subcommand_required_set() {
        all.push(before.join(" "));
    }
    for below in command.get_subcommands() {
        all.extend(commands(below, &[before, &[below.get_name()]].concat()));
    }
    all
}

/// The words of a line that name its command.
fn path_of(line: &str) -> Vec<String> {
    let mut command = Args::command();
    let mut path = Vec::new();
    for word in line.split_whitespace() {
        let Some(below) = command.find_subcommand(word) else {
            break;
        };
        path.push(below.get_name().to_owned());
        command = below.clone();
    }
    path
}
