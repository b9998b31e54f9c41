//! `/join`: how to add a device, for each system. The key of an invitation is in the fragment of the URL,
//! which browsers do not send; a script inserts it into the page.

use hyper::StatusCode;

use crate::web::html::{Builder, Page, Piece};

/// Placeholder of the key, shown until the script fills it in, or when there is none.
const NO_KEY: &str = "KEY";

/// Accepts only text in the format of a key, and inserts it as text.
const SCRIPT: &str = "\
(function(){\
var k=location.hash.slice(1);\
if(!/^hskey-auth-[A-Za-z0-9_-]{70,90}$/.test(k))return;\
document.querySelectorAll('[data-key]').forEach(function(e){e.textContent=k});\
})()";

/// The page.
pub fn page(url: &str) -> Page {
    let command: &[Piece<'_>] = &[
        Piece::Text("tailscale login --login-server="),
        Piece::Text(url),
        Piece::Text(" --auth-key="),
        Piece::Key(NO_KEY),
    ];
    let server = Piece::Code(url);
    let key = Piece::Key(NO_KEY);
    let install = |link| -> [Piece<'_>; 3] {
        [
            Piece::Text("Install the official client: "),
            link,
            Piece::Text("."),
        ]
    };
    let then_approve: &[Piece<'_>] = &[Piece::Text(
        "If it shows a URL instead of connecting, send the URL to the owner for approval.",
    )];
    Builder::new(StatusCode::OK, "Add a device")
        .script(SCRIPT)
        .paragraph(&[
            Piece::Text("Server: "),
            server,
        ])
        .paragraph(&[
            Piece::Text("Key: "),
            key,
            Piece::Text(
                ". The owner makes one on the server with ",
            ),
            Piece::Code("hearth invite"),
            Piece::Text(". It works once. Without a key, leave that part out: the device then waits for approval."),
        ])
        .heading("On a computer, as administrator")
        .command(command)
        .steps(
            "Linux",
            true,
            &[
                &install(Piece::Link(LINUX, "tailscale.com/download/linux")),
                &[Piece::Text("Run the command above as root.")],
            ],
        )
        .steps(
            "macOS",
            false,
            &[
                &install(Piece::Link(MACOS, "tailscale.com/download/macos")),
                &[
                    Piece::Text("Hold Option, click the Tailscale icon in the menu bar, then Debug, Custom Login Server, Add Account."),
                ],
                &[Piece::Text("Enter "), server, Piece::Text(".")],
                &[Piece::Text("Or run the command above in a terminal.")],
                then_approve,
            ],
        )
        .steps(
            "Windows",
            false,
            &[
                &install(Piece::Link(WINDOWS, "tailscale.com/download/windows")),
                &[Piece::Text("Run the command above in PowerShell.")],
            ],
        )
        .steps(
            "Android",
            false,
            &[
                &install(Piece::Link(ANDROID, "Google Play or F-Droid")),
                &[Piece::Text("Open Settings, Accounts, the three-dot menu, Use an alternate server.")],
                &[Piece::Text("Enter "), server, Piece::Text(".")],
                &[
                    Piece::Text("With a key: in the same menu choose Use an auth key, and enter "),
                    key,
                    Piece::Text("."),
                ],
                then_approve,
            ],
        )
        .steps(
            "iPhone and iPad",
            false,
            &[
                &install(Piece::Link(IOS, "App Store")),
                &[Piece::Text("Open the app, tap the account icon, Log in, the three-dot menu, Use a custom coordination server.")],
                &[Piece::Text("Enter "), server, Piece::Text(" and log in.")],
                then_approve,
            ],
        )
        .steps(
            "Apple TV",
            false,
            &[
                &[Piece::Text("Install Tailscale from the App Store, but do not open it yet.")],
                &[Piece::Text("Open Settings, Apps, Tailscale, ALTERNATE COORDINATION SERVER URL.")],
                &[Piece::Text("Enter "), server, Piece::Text(", then open the app and log in.")],
                then_approve,
            ],
        )
        .finish()
}

const LINUX: &str = "https://tailscale.com/download/linux";
const MACOS: &str = "https://tailscale.com/download/macos";
const WINDOWS: &str = "https://tailscale.com/download/windows";
const ANDROID: &str = "https://tailscale.com/download/android";
const IOS: &str = "https://tailscale.com/download/ios";
