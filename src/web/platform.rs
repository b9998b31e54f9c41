//! `/apple` and `/windows`: the pages that Headscale has at these paths, and profiles that set the server on Apple's systems.
//!
//! Source: headscale, `hscontrol/platform_config.go` (paths, and the names in profiles).

use std::fmt::Write as _;

use hyper::StatusCode;
use ring::digest::{SHA256, digest};

use crate::web::html::{Builder, Page, Piece, escaped};

/// Variants of Tailscale for Apple's systems: the last part of the path, the type of its settings, and its name.
const APPLE: [(&str, &str, &str); 3] = [
    ("ios", "io.tailscale.ipn.ios", "Profile for iPhone and iPad"),
    (
        "macos-app-store",
        "io.tailscale.ipn.macos",
        "Profile for Tailscale from the Mac App Store",
    ),
    (
        "macos-standalone",
        "io.tailscale.ipn.macsys",
        "Profile for Tailscale downloaded for macOS",
    ),
];

/// The page about Apple's systems.
pub fn apple(url: &str) -> Page {
    Builder::new(StatusCode::OK, "Add an Apple device")
        .paragraph(&[
            Piece::Text("A profile sets the server of the Tailscale app to "),
            Piece::Code(url),
            Piece::Text(". Install the app, open the profile, and install it in the settings of the system; then log in \
                         with the app."),
        ])
        .paragraph(&[Piece::Link("/apple/ios", APPLE[0].2)])
        .paragraph(&[Piece::Link("/apple/macos-app-store", APPLE[1].2)])
        .paragraph(&[Piece::Link("/apple/macos-standalone", APPLE[2].2)])
        .heading("Without a profile")
        .paragraph(&[Piece::Link("/join", "Instructions for each system")])
        .heading("In a terminal of macOS")
        .command(&[
            Piece::Text("tailscale login --login-server="),
            Piece::Text(url),
        ])
        .finish()
}

/// The page about Windows.
pub fn windows(url: &str) -> Page {
    Builder::new(StatusCode::OK, "Add a Windows computer")
        .paragraph(&[
            Piece::Text("Install the official client: "),
            Piece::Link(
                "https://tailscale.com/download/windows",
                "tailscale.com/download/windows",
            ),
            Piece::Text(". Then run in PowerShell:"),
        ])
        .command(&[
            Piece::Text("tailscale login --login-server="),
            Piece::Text(url),
        ])
        .heading("For all users of the computer")
        .paragraph(&[Piece::Text(
            "As administrator, before the client starts; the app then uses this server by itself:",
        )])
        .command(&[
            Piece::Text(
                "reg add \"HKLM\\Software\\Policies\\Tailscale\" /v LoginURL /t REG_SZ /d ",
            ),
            Piece::Text(url),
        ])
        .heading("With a key")
        .paragraph(&[Piece::Link("/join", "Instructions for each system")])
        .finish()
}

/// A profile that sets the server; `None` for an unknown variant. The same server always gives the same profile, which
/// replaces itself.
pub fn profile(variant: &str, url: &str) -> Option<String> {
    let (_, kind, name) = APPLE.iter().find(|(known, ..)| *known == variant)?;
    let (outer, inner) = (
        uuid(url, variant, "profile"),
        uuid(url, variant, "settings"),
    );
    let url = escaped(url);
    Some(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\"><dict>\n\
         <key>PayloadType</key><string>Configuration</string>\n\
         <key>PayloadVersion</key><integer>1</integer>\n\
         <key>PayloadIdentifier</key><string>hearth.{variant}</string>\n\
         <key>PayloadUUID</key><string>{outer}</string>\n\
         <key>PayloadDisplayName</key><string>hearth: {name}</string>\n\
         <key>PayloadDescription</key><string>Sets the server of Tailscale to {url}</string>\n\
         <key>PayloadRemovalDisallowed</key><false/>\n\
         <key>PayloadContent</key><array><dict>\n\
         <key>PayloadType</key><string>{kind}</string>\n\
         <key>PayloadVersion</key><integer>1</integer>\n\
         <key>PayloadIdentifier</key><string>hearth.{variant}.settings</string>\n\
         <key>PayloadUUID</key><string>{inner}</string>\n\
         <key>PayloadEnabled</key><true/>\n\
         <key>ControlURL</key><string>{url}</string>\n\
         </dict></array>\n</dict></plist>\n"
    ))
}

/// A UUID made from names (version 8, RFC 9562, section 5.8).
fn uuid(url: &str, variant: &str, part: &str) -> String {
    let hash = digest(&SHA256, format!("{url} {variant} {part}").as_bytes());
    let mut text = String::new();
    for (at, byte) in hash.as_ref().iter().take(16).enumerate() {
        let byte = match at {
            6 => byte & 0x0f | 0x80,
            8 => byte & 0x3f | 0x80,
            _ => *byte,
        };
        let dash = if matches!(at, 4 | 6 | 8 | 10) {
            "-"
        } else {
            ""
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "{dash}{byte:02X}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://hearth.example.org";

    #[test]
    fn pages_lead_to_all_profiles_and_name_the_server() {
        let page = apple(URL);
        for (variant, ..) in APPLE {
            assert!(
                page.text.contains(&format!("href=\"/apple/{variant}\"")),
                "{variant}"
            );
        }
        for page in [page, windows(URL)] {
            assert!(
                page.text.contains(&format!("--login-server={URL}")),
                "{}",
                page.text
            );
        }
    }

    #[test]
    fn a_profile_sets_the_server_and_is_always_the_same() {
        for (variant, kind, _) in APPLE {
            let text = profile(variant, URL).unwrap();
            assert!(text.contains(&format!("<key>ControlURL</key><string>{URL}</string>")));
            assert!(text.contains(&format!("<string>{kind}</string>")));
            assert_eq!(profile(variant, URL), Some(text));
        }
        assert_eq!(profile("android", URL), None);
        let (one, other) = (uuid(URL, "ios", "profile"), uuid(URL, "ios", "settings"));
        assert_ne!(one, other);
        assert!(one.len() == 36 && one.as_bytes()[14] == b'8', "{one}");
    }
}
