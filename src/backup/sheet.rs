//! The recovery sheet: what is enough, together with a backup, to have the server back on a new machine. To be printed and
//! kept away from the machine.

use std::fmt::Write as _;

use crate::qr;
use hearth_core::backup::Manifest;

/// What opens the backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// An age identity, which the sheet shows. Anyone who has the sheet and a backup can impersonate the server.
    Identity {
        /// `AGE-SECRET-KEY-1…`.
        secret: String,
        /// `age1…`.
        recipient: String,
    },
    /// Backups are encrypted for these; their identities are elsewhere.
    Recipients(Vec<String>),
    /// Backups are encrypted with a passphrase, or not at all.
    Passphrase,
}

/// A paragraph of the sheet.
struct Part {
    title: &'static str,
    text: Vec<String>,
    /// A code beside the text.
    code: Option<String>,
    /// Lines to type.
    commands: Vec<String>,
}

fn parts(manifest: &Manifest, key: &Key) -> Vec<Part> {
    let or_none = |text: &str| match text {
        "" => "none".to_owned(),
        text => text.to_owned(),
    };
    let opening = match key {
        Key::Identity { secret, recipient } => Part {
            title: "Key of the backups (secret)",
            text: vec![
                "This age identity opens every backup that is encrypted for the recipient below. Anyone who has this \
                 sheet and a backup can impersonate the server: keep them in different places."
                    .to_owned(),
                format!("Identity:  {secret}"),
                format!("Recipient: {recipient}"),
            ],
            code: Some(secret.clone()),
            commands: Vec::new(),
        },
        Key::Recipients(recipients) => Part {
            title: "Key of the backups",
            text: std::iter::once(
                "Backups are encrypted for these age recipients. The identity of one of them is necessary, and is not on \
                 this sheet:"
                    .to_owned(),
            )
            .chain(recipients.iter().cloned())
            .collect(),
            code: None,
            commands: Vec::new(),
        },
        Key::Passphrase => Part {
            title: "Key of the backups",
            text: vec![
                "Backups are encrypted with a passphrase, or not at all. Passphrase, if there is one: ____________________"
                    .to_owned(),
            ],
            code: None,
            commands: Vec::new(),
        },
    };
    let identity_file = match key {
        Key::Passphrase => "",
        Key::Identity { .. } | Key::Recipients(_) => " --identity key.txt",
    };
    let mut commands =
        vec!["sudo apt install ./hearth_*.deb      # OpenWrt: apk add hearth".to_owned()];
    if let Key::Identity { .. } = key {
        commands.push("printf '%s\\n' AGE-SECRET-KEY-1... > key.txt".to_owned());
    }
    commands.extend([
        "sudo systemctl stop hearth           # OpenWrt: /etc/init.d/hearth stop".to_owned(),
        format!("sudo hearth restore --force{identity_file} --settings-dir /etc/hearth BACKUP"),
        "sudo systemctl start hearth          # OpenWrt: /etc/init.d/hearth start".to_owned(),
        "sudo hearth status && sudo hearth nodes list".to_owned(),
    ]);
    let settings = manifest.settings.iter().map(|setting| setting.path.clone());
    let settings: Vec<String> = settings.collect();
    vec![
        Part {
            title: "Server",
            text: vec![
                format!("URL:         {}", or_none(&manifest.server_url)),
                format!("Noise key:   {}", or_none(&manifest.noise_key)),
                format!("Relay key:   {}", or_none(&manifest.relay_key)),
                format!("Certificate: {}", match manifest.certificate.as_str() {
                    "" => "not self-signed".to_owned(),
                    sum => format!("SHA-256 {sum}"),
                }),
                format!("hearth:      {}", manifest.hearth),
                format!("Contents:    {} nodes, {} users", manifest.nodes, manifest.users),
                format!("Settings:    {}", or_none(&settings.join(", "))),
                format!("Sheet made:  {}", manifest.created),
            ],
            code: Some(manifest.server_url.clone()).filter(|url| !url.is_empty()),
            commands: Vec::new(),
        },
        opening,
        Part {
            title: "On a new machine",
            text: vec![
                "Give it the address of the old one, or point the DNS name to it, and never run both at the same time. \
                 With a newer hearth the same commands work. The keys above must be the same afterwards; then devices \
                 reconnect by themselves."
                    .to_owned(),
            ],
            code: None,
            commands,
        },
        Part {
            title: "Without hearth",
            text: vec!["A backup opens with standard tools:".to_owned()],
            code: None,
            commands: vec![
                match key {
                    Key::Passphrase => "age -d BACKUP | tar --zstd -x".to_owned(),
                    _ => "age -d -i key.txt BACKUP | tar --zstd -x".to_owned(),
                },
                "cd hearth-backup && sha256sum -c SHA256SUMS".to_owned(),
            ],
        },
    ]
}

/// The sheet for a terminal.
pub fn text(manifest: &Manifest, key: &Key) -> String {
    let mut sheet = String::from("RECOVERY SHEET OF A HEARTH SERVER\n");
    for part in parts(manifest, key) {
        let _ = write!(sheet, "\n{}\n\n", part.title.to_uppercase());
        for line in &part.text {
            let _ = writeln!(sheet, "{line}");
        }
        for line in &part.commands {
            let _ = writeln!(sheet, "    {line}");
        }
        if let Some(drawing) = part.code.as_deref().and_then(qr::for_terminal) {
            let _ = write!(sheet, "\n{drawing}\n");
        }
    }
    sheet.truncate(sheet.trim_end().len());
    sheet
}

/// The sheet as a page to print, of one file without anything from elsewhere.
pub fn html(manifest: &Manifest, key: &Key) -> String {
    let mut page = String::from(HEAD);
    for part in parts(manifest, key) {
        let _ = write!(page, "<section>\n<h2>{}</h2>\n", escaped(part.title));
        if let Some(drawing) = part.code.as_deref().and_then(svg) {
            page.push_str(&drawing);
        }
        let (facts, prose): (Vec<&String>, Vec<&String>) =
            part.text.iter().partition(|line| is_fact(line));
        for line in prose {
            let _ = writeln!(page, "<p>{}</p>", escaped(line));
        }
        if !facts.is_empty() {
            page.push_str("<dl>\n");
            for line in facts {
                let (name, value) = line.split_once(':').unwrap_or(("", line));
                let (name, value) = (escaped(name), escaped(value.trim()));
                let _ = writeln!(page, "<dt>{name}</dt><dd>{value}</dd>");
            }
            page.push_str("</dl>\n");
        }
        if !part.commands.is_empty() {
            let _ = writeln!(page, "<pre>{}</pre>", escaped(&part.commands.join("\n")));
        }
        page.push_str("</section>\n");
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// Whether a line is a name with its value, and not prose.
fn is_fact(line: &str) -> bool {
    let name = line.split_once(": ").map(|(name, _)| name);
    name.is_some_and(|name| name.len() < 12 && !name.contains(['.', ',']))
}

/// A4 and letter; black on white, so that it prints on anything.
const HEAD: &str = "<!DOCTYPE html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<title>Recovery sheet of a hearth server</title>
<style>
@page { margin: 15mm; }
body { font: 10.5pt/1.4 sans-serif; color: #000; background: #fff; max-width: 180mm; margin: 8mm auto; padding: 0 5mm; }
h1 { font-size: 17pt; margin: 0 0 4mm; }
h2 { font-size: 12pt; margin: 0 0 2mm; border-bottom: 0.3mm solid #000; }
section { margin: 0 0 6mm; break-inside: avoid; display: flow-root; }
svg { float: right; width: 34mm; height: 34mm; margin: 0 0 2mm 5mm; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.8mm 4mm; margin: 2mm 0; }
dt { font-weight: bold; }
dd { margin: 0; font-family: monospace; word-break: break-all; }
p { margin: 1mm 0; overflow-wrap: anywhere; }
pre { font-size: 9pt; background: #f2f2f2; padding: 2mm; margin: 2mm 0 0; white-space: pre-wrap; clear: both; }
</style>
</head>
<body>
<h1>Recovery sheet of a hearth server</h1>
";

/// A QR code as SVG, with its quiet zone.
fn svg(text: &str) -> Option<String> {
    let rows = qr::rows(text)?;
    let side = rows.len().saturating_add(8);
    let mut path = String::new();
    for (y, row) in rows.iter().enumerate() {
        for (x, module) in row.bytes().enumerate() {
            if module == b'1' {
                let (x, y) = (x.saturating_add(4), y.saturating_add(4));
                let _ = write!(path, "M{x} {y}h1v1h-1z");
            }
        }
    }
    Some(format!(
        "<svg viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\" role=\"img\"><rect width=\"{side}\" \
         height=\"{side}\" fill=\"#fff\"/><path d=\"{path}\"/></svg>\n"
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_core::clock::Timestamp;

    fn manifest() -> Manifest {
        let mut manifest = Manifest::new("0.1.0", Timestamp::from_unix_ms(1_800_000_000_000));
        manifest.server_url = "https://hearth.example.org".into();
        manifest.noise_key = format!("mkey:{}", "ab".repeat(32));
        manifest
    }

    #[test]
    fn the_sheet_has_the_secret_the_server_and_the_commands() {
        let key = Key::Identity {
            secret: "AGE-SECRET-KEY-1X".into(),
            recipient: "age1x".into(),
        };
        for sheet in [text(&manifest(), &key), html(&manifest(), &key)] {
            for part in [
                "AGE-SECRET-KEY-1X",
                "age1x",
                "https://hearth.example.org",
                "mkey:abab",
                "hearth restore --force --identity key.txt --settings-dir /etc/hearth BACKUP",
                "age -d -i key.txt BACKUP | tar --zstd -x",
            ] {
                assert!(sheet.contains(part), "{part}: {sheet}");
            }
        }
        assert!(text(&manifest(), &key).contains('█'));
        assert_eq!(html(&manifest(), &key).matches("<svg").count(), 2);
    }

    #[test]
    fn a_sheet_for_recipients_says_that_their_identity_is_elsewhere() {
        let sheet = text(&manifest(), &Key::Recipients(vec!["age1y".into()]));
        assert!(sheet.contains("age1y") && sheet.contains("is not on this sheet"));
        assert!(!sheet.contains("AGE-SECRET"));
        let sheet = text(&manifest(), &Key::Passphrase);
        assert!(!sheet.contains("--identity"), "{sheet}");
    }

    #[test]
    fn the_page_escapes_what_the_manifest_says() {
        let mut manifest = manifest();
        manifest.server_url = "<script>alert(1)</script>".into();
        let page = html(&manifest, &Key::Passphrase);
        assert!(!page.contains("<script>"), "{page}");
    }
}
