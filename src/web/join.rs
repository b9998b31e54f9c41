//! `/join`: how to add a device, the visitor's system first. The key of an invitation is in the fragment of the URL,
//! which browsers do not send; a script inserts it into the page.

use hyper::StatusCode;

use crate::web::html::{Builder, Page, Piece, Step};

/// Inserts the key, only text in the format of a key, as text; shows the buttons that copy.
///
/// On a phone or tablet it keeps the key for an hour, for the page to which the app leads (`register.rs`). Not on
/// computers: there the owner opens invitations of others.
const SCRIPT: &str = "\
(function(){\
function all(s,f){document.querySelectorAll(s).forEach(f)}\
var k=location.hash.slice(1),n=navigator;\
if(/^hskey-auth-[A-Za-z0-9_-]{70,90}$/.test(k)){\
all('[data-key]',function(e){e.textContent=k});\
all('[data-with-key]',function(e){e.hidden=false});\
all('[data-without-key]',function(e){e.hidden=true});\
if(/Android|iPhone|iPad|iPod/.test(n.userAgent)||(/Macintosh/.test(n.userAgent)&&n.maxTouchPoints>1))\
try{localStorage.setItem('hearth-invitation',JSON.stringify({key:k,until:Date.now()+36e5}))}catch(e){}\
}\
all('button[data-copy]',function(b){\
b.hidden=false;\
b.onclick=function(){\
var r=document.createRange(),s=getSelection();\
r.selectNodeContents(b.previousElementSibling);s.removeAllRanges();s.addRange(r);\
if(document.execCommand('copy'))b.textContent='Copied'\
}});\
})()";

/// A system of a visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    Android,
    Ios,
    Windows,
    Macos,
    Linux,
    AppleTv,
}

/// All systems, phones first: they have no other way to get the instructions.
const SYSTEMS: [System; 6] = [
    System::Android,
    System::Ios,
    System::Windows,
    System::Macos,
    System::Linux,
    System::AppleTv,
];

impl System {
    /// The system that a `User-Agent` names. iPads call themselves Macs, see [`order`].
    fn of(agent: &str) -> Option<Self> {
        // Android also says Linux, and iPhones also say Mac OS X. ChromeOS runs apps for Android.
        let names = [
            ("Android", Self::Android),
            ("CrOS", Self::Android),
            ("AppleTV", Self::AppleTv),
            ("iPhone", Self::Ios),
            ("iPad", Self::Ios),
            ("iPod", Self::Ios),
            ("Windows", Self::Windows),
            ("Macintosh", Self::Macos),
            ("Linux", Self::Linux),
            ("BSD", Self::Linux),
            ("X11", Self::Linux),
        ];
        let mut names = names.into_iter();
        names
            .find(|(name, _)| agent.contains(name))
            .map(|(_, system)| system)
    }
}

/// The systems, that of the visitor first.
fn order(agent: &str) -> (Option<System>, Vec<System>) {
    let own = System::of(agent);
    let mut order = SYSTEMS.to_vec();
    // An iPad calls itself a Mac.
    if own == Some(System::Macos) {
        order.sort_by_key(|system| *system != System::Ios);
    }
    order.sort_by_key(|system| Some(*system) != own);
    (own, order)
}

/// The page. `agent` is the `User-Agent` of the visitor.
pub fn page(url: &str, agent: &str) -> Page {
    let (own, order) = order(agent);
    let mut page = Builder::new(StatusCode::OK, "Add a device")
        .script(SCRIPT)
        .only(true)
        .paragraph(&[Piece::Text(
            "This is an invitation for one device. Open it on that device, and follow the steps for its system.",
        )])
        .end()
        .only(false)
        .paragraph(&[Piece::Text(
            "This page has no key of an invitation. A device that follows the steps waits for approval by the owner; with an \
             invitation it joins at once. (Without JavaScript: the key is what follows # in the address of this page.)",
        )])
        .end();
    for (number, system) in order.into_iter().enumerate() {
        if number == 1 && own.is_some() {
            page = page.heading("Other systems");
        }
        page = steps(page, system, Some(system) == own, url);
    }
    page.finish()
}

/// Closing it leads back to the app, where the server is entered.
const TRAP: Step<'static> = Step::Do(&[Piece::Text(
    "Open the app. If it opens a page to sign in with Google, Microsoft or the like, close that page: it is not for \
     this network.",
)]);

const THEN_ENTER: Step<'static> = Step::CopyKey(
    "A page “A device asks to join” opens. The invitation is filled in there: press Join. If it is not, paste this key:",
);

const THEN_APPROVE: Step<'static> = Step::WithoutKey(
    "A page “A device asks to join” opens. Send its address to the owner for approval.",
);

const TRY_APP: Step<'static> = Step::Do(&[Piece::Text(
    "Try it: the app says “Connected” and lists the other devices.",
)]);

const TRY_COMMAND: Step<'static> = Step::Copy(
    "Try it: this lists the devices that you can reach.",
    "Copy command",
    &[Piece::Text("tailscale status")],
);

/// The step to install the official client.
fn install(link: Piece<'static>) -> [Piece<'static>; 2] {
    [Piece::Text("Install the official client: "), link]
}

fn steps(page: Builder, system: System, open: bool, url: &str) -> Builder {
    let login = [
        Piece::Text("tailscale login --login-server="),
        Piece::Text(url),
        Piece::WithKey(" --auth-key="),
    ];
    let server = [Piece::Text(url)];
    let enter = |text: &'static str| Step::Copy(text, "Copy server", &server);
    match system {
        System::Linux => {
            let [tailscale, server, key] = login;
            page.steps(
                "Linux",
                open,
                &[
                    Step::Do(&install(Piece::Link(LINUX, "tailscale.com/download/linux"))),
                    Step::Copy(
                        "Run:",
                        "Copy command",
                        &[Piece::Text("sudo "), tailscale, server, key],
                    ),
                    Step::Do(&[
                        Piece::Text("To reach networks behind other devices as well, add "),
                        Piece::Code("--accept-routes"),
                        Piece::Text("."),
                    ]),
                    TRY_COMMAND,
                ],
            )
        }
        System::Macos => page.steps(
            "macOS",
            open,
            &[
                Step::Do(&install(Piece::Link(MACOS, "tailscale.com/download/macos"))),
                TRAP,
                enter(
                    "Hold Option, click the Tailscale icon in the menu bar, then Debug, Custom Login Server, Add Account. \
                     Enter:",
                ),
                THEN_ENTER,
                THEN_APPROVE,
                Step::Copy(
                    "Or, instead of the last steps, run in a terminal:",
                    "Copy command",
                    &login,
                ),
                TRY_APP,
            ],
        ),
        System::Windows => page.steps(
            "Windows",
            open,
            &[
                Step::Do(&install(Piece::Link(WINDOWS, "tailscale.com/download/windows"))),
                TRAP,
                Step::Copy("Run in PowerShell:", "Copy command", &login),
                TRY_COMMAND,
            ],
        ),
        System::Android => page.steps(
            "Android",
            open,
            &[
                Step::Do(&install(Piece::Link(ANDROID, "Google Play or F-Droid"))),
                TRAP,
                enter("Open Settings, Accounts, the three-dot menu, Use an alternate server. Enter:"),
                THEN_ENTER,
                Step::CopyKey("If no page opens: in the same menu choose Use an auth key. Enter:"),
                THEN_APPROVE,
                TRY_APP,
            ],
        ),
        System::Ios => page.steps(
            "iPhone and iPad",
            open,
            &[
                Step::Do(&install(Piece::Link(IOS, "App Store"))),
                TRAP,
                enter(
                    "Tap the account icon, Log in, the three-dot menu, Use a custom coordination server. Enter this, \
                     then log in:",
                ),
                THEN_ENTER,
                THEN_APPROVE,
                TRY_APP,
            ],
        ),
        System::AppleTv => page.steps(
            "Apple TV",
            open,
            &[
                Step::Do(&[Piece::Text(
                    "Install Tailscale from the App Store, but do not open it yet.",
                )]),
                enter("Open Settings, Apps, Tailscale, ALTERNATE COORDINATION SERVER URL. Enter:"),
                Step::Do(&[Piece::Text(
                    "Open the app and log in. It shows a QR code: scan it with your phone.",
                )]),
                THEN_ENTER,
                THEN_APPROVE,
                TRY_APP,
            ],
        ),
    }
}

const LINUX: &str = "https://tailscale.com/download/linux";
const MACOS: &str = "https://tailscale.com/download/macos";
const WINDOWS: &str = "https://tailscale.com/download/windows";
const ANDROID: &str = "https://tailscale.com/download/android";
const IOS: &str = "https://tailscale.com/download/ios";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_of_each_system_name_the_sign_in_page_where_an_app_opens_one_and_end_with_a_try() {
        let text = page("http://192.168.1.1:8080", "").text;
        let systems: Vec<&str> = text.split("<summary>").skip(1).collect();
        assert!(systems.len() >= 5, "{text}");
        for system in systems {
            let name = system.split('<').next().unwrap_or_default();
            let (steps, _) = system.split_once("</ol>").unwrap();
            let last = steps.rsplit("<li>").next().unwrap_or_default();
            assert!(last.starts_with("Try it: "), "{name}: {last}");
            let is_app = ["Android", "iPhone", "macOS", "Windows"]
                .iter()
                .any(|app| name.starts_with(app));
            assert!(
                !is_app || steps.contains("close that page: it is not for this network"),
                "{name}"
            );
        }
    }

    /// Browsers in the order of their `User-Agent`s' traps: each names another system as well.
    #[test]
    fn the_system_of_the_visitor_comes_first() {
        for (agent, first) in [
            (
                "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 Chrome/130.0 Mobile Safari/537.36",
                "Android",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1",
                "iPhone and iPad",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.1 Safari/605.1.15",
                "macOS",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:132.0) Gecko/20100101 Firefox/132.0",
                "Windows",
            ),
            (
                "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
                "Linux",
            ),
            (
                "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 Chrome/130.0 Safari/537.36",
                "Android",
            ),
            (
                "Mozilla/5.0 (X11; FreeBSD amd64; rv:132.0) Gecko/20100101 Firefox/132.0",
                "Linux",
            ),
        ] {
            let page = page("http://192.168.1.1:8080", agent);
            let opened = format!("<details open><summary>{first}</summary>");
            assert!(page.text.contains(&opened), "{agent}");
            let position = |text: &str| page.text.find(text).unwrap();
            assert_eq!(page.text.matches("<details open>").count(), 1);
            assert_eq!(position("<details"), position(&opened), "{agent}");
            assert!(position("Other systems") > position(&opened));
        }
    }

    #[test]
    fn an_ipad_that_calls_itself_a_mac_has_its_steps_next() {
        let (_, order) = order("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Safari/605.1.15");
        assert_eq!(order.get(..2), Some(&[System::Macos, System::Ios][..]));
    }

    #[test]
    fn an_unknown_system_gets_all_of_them_closed() {
        let page = page("http://192.168.1.1:8080", "curl/8.5");
        assert_eq!(page.text.matches("<details>").count(), SYSTEMS.len());
        assert!(!page.text.contains("Other systems"));
    }

    /// Whoever copies a key from running text also copies the full stop after it.
    #[test]
    fn the_key_is_only_where_it_is_copied_whole() {
        let page = page("http://192.168.1.1:8080", "Android");
        for (at, _) in page.text.match_indices("<span data-key>") {
            let after = page.text.get(at..).unwrap();
            let after = after.split_once("</span>").unwrap().1;
            assert!(
                after.starts_with("</code>") || after.starts_with("</span></code>"),
                "{after:.60}"
            );
        }
        assert_eq!(
            page.text.matches("<button").count(),
            page.text.matches("data-copy hidden>Copy ").count()
        );
    }
}
