//! derp (placeholder until the crate is merged)
#![allow(missing_docs)]
#[derive(Clone, Copy)]
pub struct Key([u8; 32]);
impl From<[u8; 32]> for Key {
    fn from(b: [u8; 32]) -> Self {
        Self(b)
    }
}
impl Key {
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
