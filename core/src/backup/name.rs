//! Names of the files in a backup, which can lead nowhere else.

use std::fmt;
use std::str::FromStr;

/// Longest name, in bytes: what a tar header holds beside the folder of the archive.
const MOST_BYTES: usize = 80;
/// Most folders and the file itself.
const MOST_PARTS: usize = 4;

/// Where a file of a backup belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The data directory.
    Data,
    /// The configuration.
    Settings,
}

impl Place {
    const fn folder(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Settings => "settings",
        }
    }
}

/// A relative path of plain names: letters, digits, `.`, `-` and `_`, none of which begins with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    place: Place,
    path: String,
}

/// Not a name of a file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid file name {0:?}")]
pub struct InvalidName(pub String);

impl Name {
    /// The file with this path below its place.
    ///
    /// # Errors
    /// When the path could lead elsewhere, is too long, or has other characters.
    pub fn new(place: Place, path: &str) -> Result<Self, InvalidName> {
        let is_plain = |part: &str| {
            let mut bytes = part.bytes();
            !part.is_empty()
                && !part.starts_with('.')
                && bytes.all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        };
        let is_valid = path.len() <= MOST_BYTES
            && path.split('/').count() <= MOST_PARTS
            && path.split('/').all(is_plain);
        match is_valid {
            true => Ok(Self {
                place,
                path: path.to_owned(),
            }),
            false => Err(InvalidName(path.chars().take(MOST_BYTES).collect())),
        }
    }

    /// Where the file belongs.
    pub const fn place(&self) -> Place {
        self.place
    }

    /// The path below its place.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// With the folder of its place, as in the archive.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.place.folder(), self.path)
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let places = [Place::Data, Place::Settings];
        let found = places.into_iter().find_map(|place| {
            let path = text.strip_prefix(place.folder())?.strip_prefix('/')?;
            Some((place, path))
        });
        match found {
            Some((place, path)) => Self::new(place, path),
            None => Err(InvalidName(text.chars().take(MOST_BYTES).collect())),
        }
    }
}
