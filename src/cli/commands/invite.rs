//! `hearth invite`.

use std::io;

use super::preauthkeys::expires;
use crate::api::{CreateInvite, Invite, NumberText};
use crate::cli::args::InviteArgs;
use crate::cli::client::{CliError, read};
use crate::cli::context::Ctx;
use crate::cli::output::{Output, Terminal, cell};
use crate::config::moment;
use crate::qr;

/// Bright white on black, as scanners expect it, whatever the colours of the terminal are (SGR parameters of
/// ECMA-48, 8.3.117, and xterm's bright colours).
const WHITE_ON_BLACK: &str = "\u{1b}[97;40m";
const RESET: &str = "\u{1b}[0m";

/// Creates a single-use key: the command line for the device is the result; the QR code is for the person.
pub fn run(ctx: &Ctx, args: InviteArgs) -> Result<Output, CliError> {
    let body = CreateInvite {
        user: NumberText(args.user.unwrap_or_default()),
        expiration: Some(moment::text(args.expiration)),
    };
    let answer = ctx.client.post("/api/v1/hearth/invite", &body)?;
    let invite: Invite = read(&answer)?;
    let code = qr::for_terminal(&invite.join_url).unwrap_or_default();
    let note = format!(
        "{}\nRun the line above on the device. It joins one device as {}'s, until {}.\n\
         On a phone, scan this code; it opens {}\n\n{}",
        warning(&invite.join_url),
        cell(&invite.user.name),
        expires(invite.expiration),
        invite.join_url,
        in_colors(&code, Terminal::of(&io::stderr())),
    );
    Ok(ctx.output(&answer, || invite.command).note(&note))
}

/// What to know about an invitation that leads to this machine only.
fn warning(url: &str) -> &'static str {
    let host = url.split("://").nth(1).unwrap_or_default();
    let is_local = ["127.", "localhost", "[::1]"];
    match is_local.iter().any(|local| host.starts_with(local)) {
        true => {
            "\nWarning: this works on this machine only. It has no private address yet, or server_url names itself;\n\
             `hearth doctor` says more. Make another invitation afterwards.\n"
        }
        false => "",
    }
}

/// The QR code with its own colours, where the terminal has any: on a light terminal it would be inverted.
fn in_colors(code: &str, terminal: Terminal) -> String {
    if !terminal.color {
        return code.to_owned();
    }
    let lines = code.lines();
    let lines: Vec<String> = lines
        .map(|line| format!("{WHITE_ON_BLACK}{line}{RESET}"))
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_to_this_machine_only_says_so() {
        for url in [
            "http://127.0.0.1:8080/join#k",
            "http://localhost/join",
            "https://[::1]:8443/join",
        ] {
            assert!(warning(url).contains("this machine only"), "{url}");
        }
        for url in [
            "http://192.168.1.20:8080/join",
            "https://home.example.org/join",
            "http://[fd00::1]/join",
        ] {
            assert_eq!(warning(url), "", "{url}");
        }
    }

    #[test]
    fn a_code_brings_its_colours_to_a_terminal() {
        assert_eq!(in_colors("██\n▀ ", Terminal::NONE), "██\n▀ ");
        let color = Terminal {
            color: true,
            width: None,
        };
        assert_eq!(
            in_colors("█\n▀", color),
            "\u{1b}[97;40m█\u{1b}[0m\n\u{1b}[97;40m▀\u{1b}[0m"
        );
    }
}
