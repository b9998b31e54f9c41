//! Secrets that were made, and the answers in which they may not be.

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use hearth_core::state::secret::{SecretKind, split};

/// Commands and routes that show a key once: when they make it.
const MAKE_KEYS: &[&str] = &[
    "preauthkeys create",
    "apikeys create",
    "invite",
    "POST /api/v1/preauthkey",
    "POST /api/v1/apikey",
    "POST /api/v1/hearth/invite",
];

/// Commands and routes that show the IDs of what waits for a decision: by them an administrator decides.
const SHOW_IDS: &[&str] = &[
    "pending list",
    "ssh list",
    "GET /api/v1/hearth/pending",
    "GET /api/v1/hearth/ssh",
    // The pages about them: who asks for one knows the ID.
    "GET /register/{id}",
    "POST /register/{id}",
    "GET /ssh/{id}",
];

/// What kind of secret it is, and so where it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nowhere.
    Never,
    /// In the answer with this number, which made it.
    Key(usize),
    /// In the answers of [`SHOW_IDS`].
    Id,
}

struct Secret {
    kind: Kind,
    name: String,
    /// All ways to write it.
    forms: Vec<Vec<u8>>,
}

/// All secrets.
#[derive(Default)]
pub struct Secrets(Vec<Secret>);

impl Secrets {
    /// A text that may be nowhere.
    pub fn never(&mut self, name: &str, text: &str) {
        self.text(Kind::Never, name, text);
    }

    /// A text. Of a key its secret part counts for itself.
    pub fn text(&mut self, kind: Kind, name: &str, text: &str) {
        assert!(text.len() >= 16, "{name}: too short to be searched for");
        let mut forms = vec![
            text.as_bytes().to_vec(),
            HEXLOWER.encode(text.as_bytes()).into(),
        ];
        forms.push(whole_groups(text.as_bytes()));
        let parts = [SecretKind::PreAuth, SecretKind::Api].map(|kind| split(kind, text));
        for (_, secret) in parts.into_iter().flatten() {
            forms.push(secret.as_bytes().to_vec());
        }
        let digits = text.rsplit('-').next().unwrap_or(text);
        if let Ok(bytes) = HEXLOWER.decode(digits.as_bytes()) {
            forms.extend(forms_of(&bytes));
        }
        self.put(kind, name, forms);
    }

    /// Bytes that may be nowhere, in any spelling.
    pub fn bytes(&mut self, name: &str, bytes: &[u8]) {
        self.put(Kind::Never, name, forms_of(bytes));
    }

    /// The one key in a new answer, given by its number and text.
    pub fn key(&mut self, (number, text): (usize, &str)) -> String {
        let mut keys = keys_in(text);
        keys.dedup();
        let key = keys.pop().unwrap_or_else(|| panic!("no key in {text}"));
        self.text(Kind::Key(number), "key", &key);
        key
    }

    fn put(&mut self, kind: Kind, name: &str, forms: Vec<Vec<u8>>) {
        self.0.push(Secret {
            kind,
            name: name.to_owned(),
            forms,
        });
    }

    /// Fails if nothing was searched for.
    pub fn assert_all_kinds(&self) {
        for (name, least) in [
            ("mesh key", 1),
            ("key", 12),
            ("API key", 1),
            ("wrong API key", 3),
            ("wrong preauth key", 3),
            ("pending registration", 12),
            ("SSH connection", 6),
            ("c2n call", 12),
            ("Noise key", 1),
            ("private key of the relay", 1),
            ("private key of the relay alone", 1),
            ("TLS key", 2),
        ] {
            let count = self.0.iter().filter(|secret| secret.name == name).count();
            assert!(count >= least, "{name}: {count} of at least {least}");
        }
    }

    /// The keys whose text is in the file of the database.
    pub fn keys_in_database(&self, file: &[u8]) -> Vec<&str> {
        let keys = self
            .0
            .iter()
            .filter(|secret| matches!(secret.kind, Kind::Key(_)));
        let stored = keys.filter(|secret| secret.forms.iter().any(|form| has(file, form)));
        stored.map(|secret| &*secret.name).collect()
    }
}

/// The base64 of a text at the beginning of another one, as in `Basic` of HTTP.
fn whole_groups(text: &[u8]) -> Vec<u8> {
    BASE64.encode(&text[..text.len() / 3 * 3]).into()
}

/// The spellings of binary data, from `Debug` the beginning.
fn forms_of(bytes: &[u8]) -> Vec<Vec<u8>> {
    let list = format!("{:?}", &bytes[..bytes.len().min(12)]);
    let list = list.trim_matches(['[', ']']);
    vec![
        bytes.to_vec(),
        HEXLOWER.encode(bytes).into(),
        HEXUPPER.encode(bytes).into(),
        BASE64_NOPAD.encode(bytes).into(),
        BASE64URL_NOPAD.encode(bytes).into(),
        list.into(),
    ]
}

/// All keys in a text.
pub fn keys_in(text: &str) -> Vec<String> {
    let mut keys = Vec::new();
    for kind in [SecretKind::PreAuth, SecretKind::Api] {
        for (start, _) in text.match_indices(kind.lead()) {
            let rest = &text[start..];
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            let key = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
            if split(kind, key).is_some_and(|(_, secret)| secret.len() == 64) {
                keys.push(key.to_owned());
            }
        }
    }
    keys
}

struct Answer {
    /// The command, without its values, or the route.
    of: String,
    text: Vec<u8>,
}

/// Everything that was printed, answered and logged.
#[derive(Default)]
pub struct Answers(Vec<Answer>);

impl Answers {
    /// Notes an answer; gives its number and its text.
    pub fn add<'a>(&mut self, of: &str, text: &'a str) -> (usize, &'a str) {
        self.add_bytes(of, text.into());
        (self.0.len() - 1, text)
    }

    /// Notes an answer that may be no text.
    pub fn add_bytes(&mut self, of: &str, text: Vec<u8>) {
        self.0.push(Answer {
            of: of.to_owned(),
            text,
        });
    }

    /// Fails if a secret is where it may not be, and names all such places.
    pub fn assert_keep(&self, secrets: &Secrets) {
        let mut leaks = Vec::new();
        for (number, answer) in self.0.iter().enumerate() {
            for secret in &secrets.0 {
                let is_allowed = match secret.kind {
                    Kind::Never => false,
                    Kind::Key(made) => made == number && MAKE_KEYS.contains(&&*answer.of),
                    Kind::Id => SHOW_IDS.contains(&&*answer.of),
                };
                let found = secret.forms.iter().find(|form| has(&answer.text, form));
                if let (Some(form), false) = (found, is_allowed) {
                    leaks.push(format!(
                        "{} in `{}`: {}",
                        secret.name,
                        answer.of,
                        line(answer, form)
                    ));
                }
            }
        }
        assert!(
            leaks.is_empty(),
            "{} leaks:\n{}",
            leaks.len(),
            leaks.join("\n")
        );
    }
}

/// The line in which a form of a secret is.
fn line(answer: &Answer, form: &[u8]) -> String {
    let mut lines = answer.text.split(|byte| *byte == b'\n');
    let line = lines.find(|line| has(line, form)).unwrap_or_default();
    String::from_utf8_lossy(line).chars().take(400).collect()
}

fn has(text: &[u8], part: &[u8]) -> bool {
    let first = part[0];
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        rest = &rest[at..];
        if rest.starts_with(part) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}
