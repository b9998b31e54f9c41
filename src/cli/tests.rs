//! How command lines are parsed.

use clap::{CommandFactory as _, Parser as _};

use super::args::{ApiKeys, Auth, Command, Dns, Nodes, Pending, PreAuthKeys, Users, given};
use super::output::Format;
use super::*;
use crate::config::moment;

fn parse(line: &str) -> Args {
    Args::try_parse_from(line.split_whitespace()).unwrap_or_else(|fault| panic!("{line}: {fault}"))
}

#[test]
fn output_formats_are_those_of_headscale_and_table() {
    for (line, format) in [
        ("hearth status", Format::Table),
        ("hearth status -o table", Format::Table),
        ("hearth status --output json", Format::Json),
        ("hearth status -o json-line", Format::JsonLine),
        ("hearth -o yaml status", Format::Yaml),
    ] {
        assert_eq!(parse(line).output, format, "{line}");
    }
}

#[test]
fn scopes_are_checked_where_they_are_typed() {
    let line = "hearth apikeys create -s devices:core:read --scope policy_file,dns";
    let Command::Apikeys(ApiKeys::Create { scopes, .. }) = parse(line).command else {
        panic!("not create")
    };
    assert_eq!(scopes, ["devices:core:read", "policy_file", "dns"]);
}

fn is_refused(line: &str) -> bool {
    Args::try_parse_from(line.split_whitespace()).is_err_and(|fault| fault.exit_code() == 2)
}

#[test]
fn the_arguments_do_not_contradict_each_other() {
    Args::command().debug_assert();
}

#[test]
fn flags_of_the_server_become_overrides() {
    let args = parse(
        "hearth serve --config a.toml --data-dir /d --server-url https://h.example --http :80 \
         --https off --tls-cert c.pem --tls-key k.pem --stun :3479 --base-domain t.net --socket /s",
    );
    let Command::Serve(flags) = args.command else {
        panic!("not serve")
    };
    let overrides = flags.overrides(args.socket);
    assert_eq!(overrides.config, Some("a.toml".into()));
    assert_eq!(overrides.http, ":80".parse().ok());
    assert_eq!(overrides.https, "off".parse().ok());
    assert_eq!(overrides.base_domain, "t.net".parse().ok());
    assert_eq!(overrides.socket, Some("/s".into()));
    assert_eq!(overrides.tls_key, Some("k.pem".into()));
}

#[test]
fn dns_records_need_no_type() {
    let Command::Dns(Dns::Add { name, value, kind }) =
        parse("hearth dns add printer 192.168.1.20").command
    else {
        panic!("not add")
    };
    assert_eq!((&*name, &*value, &*kind), ("printer", "192.168.1.20", ""));
    for line in [
        "hearth dns ls -o json",
        "hearth dns add git nas --type ALIAS",
        "hearth dns delete git",
        "hearth dns rm git nas -t alias",
    ] {
        parse(line);
    }
    assert!(is_refused("hearth dns add git"));
}

#[test]
fn lines_made_for_headscale_are_understood() {
    let line =
        "hearth preauthkeys create --user 1 --reusable --ephemeral -e 24h --tags tag:a,tag:b";
    let Command::Preauthkeys(PreAuthKeys::Create { tags, user, .. }) = parse(line).command else {
        panic!("{line}")
    };
    assert_eq!((tags.len(), user.as_deref()), (2, Some("1")));
    for line in [
        "hearth user create anna -d Anna -e a@example.org -p http://x",
        "hearth users ls -o json",
        "hearth users rename -i 1 -r bob",
        "hearth users rename anna bob",
        "hearth users destroy --name anna --force",
        "hearth node ls -u anna -o json-line",
        "hearth nodes expire -i 3 -e 2027-01-01T00:00:00Z",
        "hearth nodes logout -i 3 -d",
        "hearth nodes rename -i 3 nas",
        "hearth nodes rename nas --identifier 3",
        "hearth nodes remove 3",
        "hearth nodes rm 3",
        "hearth users remove anna",
        "hearth preauthkeys remove 3",
        "hearth dns remove printer",
        "hearth nodes delete -i 3 --force",
        "hearth nodes lsr -i 3",
        "hearth nodes list-routes -o json",
        "hearth nodes approve-routes -i 3 -r 10.0.0.0/8,0.0.0.0/0",
        "hearth nodes approve-routes 3 --add -r 10.0.0.0/8",
        "hearth nodes approve-routes 3 --all-offered",
        "hearth nodes list --tags",
        "hearth nodes ls -t -u anna",
        "hearth nodes expire 3 -e never",
        "hearth nodes expire 3 -e 2027-01-31",
        "hearth users set-expiry anna Never",
        "hearth preauthkeys create -u anna -e never",
        "hearth preauthkeys create -u anna -e 0",
        "hearth preauthkeys create -u anna -e 2999-01-31",
        "hearth apikeys create -e never",
        "hearth invite -e 2999-01-31",
        "hearth pending approve --last --tags",
        "hearth auth register -u anna --auth-id x --tags",
        "hearth nodes tag -i 3 -t tag:a,tag:b",
        "hearth nodes move -i 3 -u 1",
        "hearth nodes backfillips --force",
        "hearth nodes register -u anna -k abc",
        "hearth authkey list",
        "hearth pre expire -i 4",
        "hearth preauthkeys delete --id 4",
        "hearth auth register --user anna --auth-id abc",
        "hearth auth approve --auth-id abc",
        "hearth apikeys create --expiration 90d",
        "hearth apikeys expire --prefix abcdefghijkl",
        "hearth api delete -i 3",
        "hearth health",
        "hearth health --alive",
        "hearth configtest",
    ] {
        parse(line);
    }
}

#[test]
fn an_empty_list_of_routes_can_be_written() {
    let line = ["hearth", "nodes", "approve-routes", "-i", "3", "-r", ""];
    let args = Args::try_parse_from(line).unwrap();
    let Command::Nodes(Nodes::ApproveRoutes { routes, .. }) = args.command else {
        panic!("not approve-routes")
    };
    assert_eq!(given(routes), [""; 0]);
}

#[test]
fn keys_approve_their_devices_unless_told_otherwise() {
    for (flag, is) in [
        ("", true),
        ("--preauthorized=true", true),
        ("--preauthorized=false", false),
        ("--preauthorized=0", false),
        ("--preauthorized=True", true),
    ] {
        let line = format!("hearth preauthkeys create --user a {flag}");
        let Command::Preauthkeys(PreAuthKeys::Create { preauthorized, .. }) = parse(&line).command
        else {
            panic!("{line}")
        };
        assert_eq!(preauthorized, is, "{line}");
    }
}

#[test]
fn the_prefix_of_an_api_key_may_begin_with_a_dash() {
    let line = "hearth apikeys expire --prefix -Ku3lTk2LUdH";
    let Command::Apikeys(ApiKeys::Expire { which }) = parse(line).command else {
        panic!("not expire")
    };
    assert_eq!(which.prefix.as_deref(), Some("-Ku3lTk2LUdH"));
}

#[test]
fn users_and_nodes_can_be_named_without_a_flag() {
    let Command::Users(Users::Delete { who }) = parse("hearth users delete anna").command else {
        panic!("not delete")
    };
    assert_eq!(who.text(), "anna");
    for line in ["hearth nodes show nas", "hearth nodes show -i nas"] {
        let Command::Nodes(Nodes::Show { which }) = parse(line).command else {
            panic!("not show")
        };
        assert_eq!(which.text(), "nas", "{line}");
    }
    for line in [
        "hearth nodes rename nas disk",
        "hearth nodes rename -i nas disk",
    ] {
        let Command::Nodes(Nodes::Rename(names)) = parse(line).command else {
            panic!("not rename")
        };
        assert_eq!(names.texts(), ("nas".into(), "disk".into()), "{line}");
    }
    let line = "hearth nodes expire --all-of anna";
    let Command::Nodes(Nodes::Expire { all_of, .. }) = parse(line).command else {
        panic!("not expire")
    };
    assert_eq!(all_of.as_deref(), Some("anna"));
    let Command::Pending(Pending::Approve { which, user, tags }) =
        parse("hearth pending approve abc --user anna").command
    else {
        panic!("not approve")
    };
    let named = (which.device.as_deref(), user.as_deref(), tags);
    assert_eq!(named, (Some("abc"), Some("anna"), false));
    let Command::Auth(Auth::Reject { auth_id }) = parse("hearth auth reject --auth-id x").command
    else {
        panic!("not reject")
    };
    assert_eq!(auth_id, "x");
    let Command::Apikeys(ApiKeys::Expire { which }) = parse("hearth apikeys expire 7").command
    else {
        panic!("not expire")
    };
    assert_eq!(which.key.as_deref(), Some("7"));
}

#[test]
fn a_line_that_says_too_little_or_nonsense_is_a_usage_fault() {
    for line in [
        "hearth",
        "hearth users delete",
        "hearth users delete anna -i 1",
        "hearth nodes expire",
        "hearth nodes expire 1 -e 30d -d",
        "hearth nodes expire 1 -e soon",
        "hearth nodes expire 1 -e 9999y",
        "hearth nodes expire 1 -e 0",
        "hearth preauthkeys create -u a -e 9999y",
        "hearth preauthkeys create -u a -e 99999y",
        "hearth apikeys create -e 99999999999999999999y",
        "hearth invite -e 9999y",
        "hearth users set-expiry anna 9999y",
        "hearth nodes approve-routes 3 -r 10.0.0.0/8 --all-offered",
        "hearth nodes expire 1 --all-of anna",
        "hearth nodes approve-routes 3",
        "hearth nodes tag 3",
        "hearth nodes set-ip 3",
        "hearth nodes set-ip 3 --ipv4 fd7a::1",
        "hearth nodes add-wireguard berlin --endpoint 203.0.113.5:1",
        "hearth nodes add-wireguard berlin --key k",
        "hearth nodes add-wireguard b --key k --endpoint 203.0.113.5:1 --dns 1.1.1.1",
        "hearth nodes add-wireguard b --key k --endpoint 203.0.113.5:1 -u a -t tag:a",
        "hearth users set-role anna king",
        "hearth users set-expiry anna soon",
        "hearth preauthkeys create --user a --preauthorized=perhaps",
        "hearth preauthkeys create",
        "hearth preauthkeys create --user a -e 5",
        "hearth serve --http nowhere",
        "hearth serve --server-url example.org",
        "hearth status -o xml",
        "hearth audit --limit 0",
        "hearth audit --limit 1001",
        "hearth nodes rename nas",
        "hearth users rename anna",
        "hearth users rename anna bob -r carl",
        "hearth nodes rename -i 3 nas disk",
        "hearth pending approve",
        "hearth pending approve tablet --last",
        "hearth apikeys create --scope devices:all",
        "hearth completion tcsh",
        "hearth frobnicate",
    ] {
        assert!(is_refused(line), "{line}");
    }
}

#[test]
fn the_socket_can_be_named_anywhere_on_the_line() {
    for line in ["hearth --socket /s status", "hearth status --socket /s"] {
        assert_eq!(parse(line).socket, Some("/s".into()), "{line}");
    }
}

/// The clock of this machine is not that of the server.
#[test]
fn a_duration_is_sent_as_one_and_a_date_as_a_date() {
    let sent = |line: &str| match parse(line).command {
        Command::Preauthkeys(PreAuthKeys::Create { expiration, .. })
        | Command::Apikeys(ApiKeys::Create { expiration, .. }) => moment::text(expiration),
        Command::Invite(args) => moment::text(args.expiration),
        Command::Nodes(Nodes::Expire { expiry, .. }) => moment::text(expiry.unwrap()),
        other => panic!("{other:?}"),
    };
    for (line, text) in [
        ("hearth preauthkeys create -u anna", "1h"),
        ("hearth preauthkeys create -u anna -e 90m", "1h30m"),
        ("hearth apikeys create -e 90d", "90d"),
        ("hearth invite", "1d"),
        ("hearth nodes expire 3 -e 30d", "30d"),
        ("hearth nodes expire 3 -e now", "now"),
        ("hearth nodes expire 3 -e never", "never"),
        (
            "hearth nodes expire 3 -e 2027-01-31",
            "2027-01-31T23:59:59Z",
        ),
        (
            "hearth invite -e 2027-01-31T12:00:00Z",
            "2027-01-31T12:00:00Z",
        ),
    ] {
        assert_eq!(sent(line), text, "{line}");
    }
}
