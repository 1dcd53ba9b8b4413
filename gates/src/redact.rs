//! TEMPORARY until merged.
pub fn text(text: &str) -> String {
    text.to_owned()
}
pub fn bytes(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}
