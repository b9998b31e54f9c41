//! Path parameters: the parts of a path that match the names of a route's pattern.

/// Path parameters with their decoded values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params(Vec<(&'static str, String)>);

impl Params {
    /// Parameters from name and value pairs.
    pub fn new(names: Vec<(&'static str, String)>) -> Self {
        Self(names)
    }

    /// Value of a parameter; empty when the pattern has no such name.
    pub fn get(&self, name: &str) -> &str {
        let pair = self.0.iter().find(|(known, _)| *known == name);
        pair.map_or("", |(_, value)| value)
    }
}
