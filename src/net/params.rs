//! The parts of a path that stand for names in a route's pattern.

/// Names with their decoded values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params(Vec<(&'static str, String)>);

impl Params {
    /// These names.
    pub fn new(names: Vec<(&'static str, String)>) -> Self {
        Self(names)
    }

    /// The value of a name in the pattern; empty when there is no such name.
    pub fn get(&self, name: &str) -> &str {
        let pair = self.0.iter().find(|(known, _)| *known == name);
        pair.map_or("", |(_, value)| value)
    }
}
