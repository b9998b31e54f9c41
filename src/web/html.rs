//! HTML pages in which all inserted text is escaped.

use data_encoding::BASE64;
use hearth_core::visible::is_visible;
use hyper::StatusCode;
use ring::digest::{SHA256, digest};

/// Style of all pages: readable on a phone, light and dark.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1d2327;--paper:#fbfaf7;--soft:#ecebe5;--fire:#b4430f}\
@media(prefers-color-scheme:dark){:root{--ink:#e8e6e1;--paper:#17191c;--soft:#272a2f;--fire:#ff9455}}\
*{box-sizing:border-box}\
body{margin:0;background:var(--paper);color:var(--ink);font:17px/1.55 system-ui,sans-serif}\
main{max-width:42rem;margin:0 auto;padding:1.5rem 1.1rem 3rem}\
header{font-weight:600;color:var(--fire);letter-spacing:.02em;margin-bottom:1.6rem}\
h1{font-size:1.55rem;line-height:1.25;margin:0 0 1rem}\
h2{font-size:1.1rem;margin:2rem 0 .4rem}\
p,ol,dl{margin:.6rem 0}p,li{overflow-wrap:anywhere}ol{padding-left:1.3rem}li{margin:.3rem 0}\
code{font:.92em/1.5 ui-monospace,monospace}\
code,pre{background:var(--soft);border-radius:.35rem}code{padding:.1em .3em;overflow-wrap:anywhere}\
pre{padding:.75rem .9rem;margin:.7rem 0;white-space:pre-wrap;overflow-wrap:anywhere}\
pre code{padding:0;background:none}\
dl{display:grid;grid-template-columns:auto 1fr;gap:.25rem 1rem}\
dt{opacity:.75}dd{margin:0;overflow-wrap:anywhere}\
details{border-top:1px solid var(--soft);padding:.55rem 0}\
summary{cursor:pointer;font-weight:600}\
a{color:var(--fire)}\
.copy{display:flex;flex-wrap:wrap;gap:.5rem;align-items:center;margin:.7rem 0}\
.copy code{flex:1 1 14rem;padding:.6rem .75rem;-webkit-user-select:all;user-select:all}\
form{margin:.7rem 0}label{display:block;font-weight:600}\
input{width:100%;font:1rem ui-monospace,monospace;padding:.6rem;margin:.3rem 0 .7rem;\
border:1px solid var(--ink);border-radius:.35rem;background:var(--paper);color:var(--ink)}\
button{font:inherit;padding:.45rem 1rem;border:0;border-radius:.35rem;background:var(--fire);color:var(--paper);cursor:pointer}\
.alert{border-left:.3rem solid var(--fire);padding:.2rem .8rem}\
[hidden]{display:none}\
footer{margin-top:2.5rem;font-size:.85rem;opacity:.7}";

/// Place of the key of an invitation.
const KEY: &str = "<span data-key>KEY</span>";

/// A finished page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// HTTP status.
    pub status: StatusCode,
    /// The HTML.
    pub text: String,
    script: Option<&'static str>,
    has_form: bool,
}

impl Page {
    /// Content-Security-Policy of the page: its own style and script, and forms to this server if it has one; nothing
    /// else.
    pub fn policy(&self) -> String {
        let hash = |text: &str| {
            let hash = digest(&SHA256, text.as_bytes());
            format!("'sha256-{}'", BASE64.encode(hash.as_ref()))
        };
        let script = self.script.map_or_else(|| "'none'".into(), hash);
        let forms = if self.has_form { "'self'" } else { "'none'" };
        format!(
            "default-src 'none'; style-src {}; script-src {script}; base-uri 'none'; form-action {forms}; frame-ancestors 'none'",
            hash(STYLE)
        )
    }
}

/// Builder of a page. All texts are escaped.
#[derive(Debug, Clone)]
pub struct Builder {
    status: StatusCode,
    title: String,
    refresh: Option<Refresh>,
    script: Option<&'static str>,
    has_form: bool,
    body: String,
}

/// How a page reloads.
#[derive(Debug, Clone, Copy)]
enum Refresh {
    /// By the browser, after so many seconds.
    Plain(u32),
    /// By the script of the page, which spares what is being typed; without scripts after so many seconds.
    Script { seconds: u32, otherwise: u32 },
}

/// Part of a paragraph.
#[derive(Debug, Clone, Copy)]
pub enum Piece<'a> {
    /// Text.
    Text(&'a str),
    /// Code.
    Code(&'a str),
    /// The key of an invitation, which the script fills in.
    Key,
    /// Text that is shown only if the script finds the key of an invitation, with the key after it.
    WithKey(&'a str),
    /// A link: its URL, which must begin with `https://` or `/`, and its text.
    Link(&'static str, &'a str),
}

impl Builder {
    /// A page with this title.
    pub fn new(status: StatusCode, title: &str) -> Self {
        let mut page = Self {
            status,
            title: escaped(title),
            refresh: None,
            script: None,
            has_form: false,
            body: String::new(),
        };
        page.body = format!("<h1>{}</h1>", page.title);
        page
    }

    /// Reloads the page every `seconds`.
    pub fn refresh(mut self, seconds: u32) -> Self {
        self.refresh = Some(Refresh::Plain(seconds));
        self
    }

    /// Has the script of the page reload it every `seconds`, and the browser every `otherwise` seconds if it runs no
    /// scripts.
    pub fn refresh_by_script(mut self, seconds: u32, otherwise: u32) -> Self {
        self.refresh = Some(Refresh::Script { seconds, otherwise });
        self
    }

    /// Adds a script at the end of the page.
    pub fn script(mut self, script: &'static str) -> Self {
        self.script = Some(script);
        self
    }

    /// Adds a paragraph.
    pub fn paragraph(mut self, pieces: &[Piece<'_>]) -> Self {
        self.body.push_str(&element("p", pieces));
        self
    }

    /// Adds a heading.
    pub fn heading(mut self, text: &str) -> Self {
        self.body.push_str(&element("h2", &[Piece::Text(text)]));
        self
    }

    /// Adds a paragraph that stands out.
    pub fn alert(mut self, text: &str) -> Self {
        let paragraph = element("p", &[Piece::Text(text)]);
        let alert = format!("<div class=\"alert\" role=\"alert\">{paragraph}</div>");
        self.body.push_str(&alert);
        self
    }

    /// Adds a command line.
    pub fn command(mut self, pieces: &[Piece<'_>]) -> Self {
        let line = element("code", pieces);
        self.body.push_str(&format!("<pre>{line}</pre>"));
        self
    }

    /// Begins a part that is shown only if the script finds the key of an invitation (`with_key`), or only if it does
    /// not. [`Self::end`] ends it.
    pub fn only(mut self, with_key: bool) -> Self {
        self.body.push_str(match with_key {
            true => "<div data-with-key hidden>",
            false => "<div data-without-key>",
        });
        self
    }

    /// Ends the part that [`Self::only`] began.
    pub fn end(mut self) -> Self {
        self.body.push_str("</div>");
        self
    }

    /// Adds a form with one field, `key`, which is sent to the URL of the page.
    pub fn key_form(mut self, label: &str, button: &str) -> Self {
        self.has_form = true;
        self.body.push_str(&format!(
            "<form method=\"post\" autocomplete=\"off\"><label for=\"key\">{}</label>\
             <input id=\"key\" name=\"key\" required maxlength=\"1024\" autocapitalize=\"none\" autocorrect=\"off\" \
             spellcheck=\"false\" placeholder=\"hskey-auth-…\"><button>{}</button></form>",
            escaped(label),
            escaped(button)
        ));
        self
    }

    /// Adds a list of names and values.
    pub fn facts(mut self, facts: &[(&str, &str)]) -> Self {
        self.body.push_str("<dl>");
        for (name, value) in facts {
            self.body.push_str(&element("dt", &[Piece::Text(name)]));
            self.body.push_str(&element("dd", &[Piece::Text(value)]));
        }
        self.body.push_str("</dl>");
        self
    }

    /// Adds collapsible steps under a title, each a paragraph or something to copy.
    pub fn steps(mut self, title: &str, open: bool, steps: &[Step<'_>]) -> Self {
        self.body
            .push_str(if open { "<details open>" } else { "<details>" });
        self.body
            .push_str(&element("summary", &[Piece::Text(title)]));
        self.body.push_str("<ol>");
        for step in steps {
            self.body.push_str(&match step {
                Step::Do(pieces) => element("li", pieces),
                Step::Copy(what, button, text) => {
                    format!("<li>{}{}</li>", escaped(what), copyable(button, text))
                }
                Step::CopyKey(what) => {
                    let key = copyable("Copy key", &[Piece::Key]);
                    format!("<li data-with-key hidden>{}{key}</li>", escaped(what))
                }
                Step::WithoutKey(what) => {
                    format!("<li data-without-key>{}</li>", escaped(what))
                }
            });
        }
        self.body.push_str("</ol></details>");
        self
    }

    /// The finished page.
    pub fn finish(self) -> Page {
        let every = |seconds| format!("<meta http-equiv=\"refresh\" content=\"{seconds}\">");
        let (reload, refresh) = match self.refresh {
            None => (String::new(), String::new()),
            Some(Refresh::Plain(seconds)) => (String::new(), every(seconds)),
            Some(Refresh::Script { seconds, otherwise }) => (
                format!(" data-reload=\"{seconds}\""),
                format!("<noscript>{}</noscript>", every(otherwise)),
            ),
        };
        let script = self
            .script
            .map_or_else(String::new, |script| format!("<script>{script}</script>"));
        let text = format!(
            "<!doctype html><html lang=\"en\"{reload}><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">{refresh}\
             <title>{} · hearth</title><style>{STYLE}</style></head><body><main>\
             <header>hearth</header>{}<footer>hearth {}</footer></main>{script}</body></html>\n",
            self.title,
            self.body,
            env!("CARGO_PKG_VERSION"),
        );
        Page {
            status: self.status,
            text,
            script: self.script,
            has_form: self.has_form,
        }
    }
}

/// A step of instructions.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// What to do.
    Do(&'a [Piece<'a>]),
    /// What to do with a text to copy, the label of the button, and the text.
    Copy(&'a str, &'a str, &'a [Piece<'a>]),
    /// What to do with the key of the invitation; shown only if the script finds one.
    CopyKey(&'a str),
    /// What to do if the script finds no key.
    WithoutKey(&'a str),
}

fn element(tag: &str, pieces: &[Piece<'_>]) -> String {
    format!("<{tag}>{}</{tag}>", inline(pieces))
}

/// A text to copy, with a button that the script shows. One click selects all of it, without scripts too.
fn copyable(button: &str, pieces: &[Piece<'_>]) -> String {
    format!(
        "<div class=\"copy\">{}<button type=\"button\" data-copy hidden>{}</button></div>",
        element("code", pieces),
        escaped(button)
    )
}

fn inline(pieces: &[Piece<'_>]) -> String {
    let mut inner = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => inner.push_str(&escaped(text)),
            Piece::Code(text) => inner.push_str(&format!("<code>{}</code>", escaped(text))),
            Piece::Key => inner.push_str(KEY),
            Piece::WithKey(text) => inner.push_str(&format!(
                "<span data-with-key hidden>{}{KEY}</span>",
                escaped(text)
            )),
            Piece::Link(address, text) => inner.push_str(&format!(
                "<a href=\"{}\" rel=\"noreferrer\">{}</a>",
                escaped(address),
                escaped(text)
            )),
        }
    }
    inner
}

/// Text escaped for HTML elements and quoted attributes. What cannot be seen is shown as a replacement
/// character, so that the name of a device cannot pose as something else.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter if !is_visible(letter) => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_mean_themselves() {
        assert_eq!(
            escaped("<b a=\"1\" c='2'>&amp;\u{202e}\n</b>"),
            "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;amp;\u{fffd}\u{fffd}&lt;/b&gt;"
        );
    }

    #[test]
    fn every_builder_method_escapes() {
        let evil = "<script>alert(1)</script>";
        let page = Builder::new(StatusCode::OK, evil)
            .paragraph(&[Piece::Text(evil), Piece::Code(evil), Piece::WithKey(evil)])
            .paragraph(&[Piece::Link("https://example.org", evil)])
            .heading(evil)
            .alert(evil)
            .command(&[Piece::Text(evil)])
            .key_form(evil, evil)
            .facts(&[(evil, evil)])
            .steps(
                evil,
                true,
                &[
                    Step::Do(&[Piece::Text(evil)]),
                    Step::Copy(evil, evil, &[Piece::Text(evil)]),
                    Step::CopyKey(evil),
                    Step::WithoutKey(evil),
                ],
            )
            .finish();
        assert!(!page.text.contains("<script"), "{}", page.text);
        assert_eq!(page.text.matches("&lt;script&gt;").count(), 20);
    }

    #[test]
    fn the_policy_allows_exactly_the_style_and_the_script_of_the_page() {
        let without = Builder::new(StatusCode::OK, "a").finish().policy();
        assert!(without.contains("script-src 'none'"), "{without}");
        let with = Builder::new(StatusCode::OK, "a").script("x()").finish();
        let hash = BASE64.encode(digest(&SHA256, b"x()").as_ref());
        assert!(
            with.policy()
                .contains(&format!("script-src 'sha256-{hash}'"))
        );
        assert!(with.text.contains("<script>x()</script>"));
        assert!(!with.policy().contains("unsafe"));
        assert!(with.policy().contains("form-action 'none'"));
        let form = Builder::new(StatusCode::OK, "a")
            .key_form("b", "c")
            .finish();
        assert!(form.policy().contains("form-action 'self'"));
    }
}
