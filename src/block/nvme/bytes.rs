//! Numbers and words in what a controller gives: little-endian, at offsets of the specification.

/// `N` bytes at an offset; the offset is one of the specification's and inside of the structure.
pub(super) fn at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes[offset..offset + N].try_into().expect("a range of that length")
}

pub(super) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(at(bytes, offset))
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(at(bytes, offset))
}

pub(super) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(at(bytes, offset))
}

pub(super) fn u128_at(bytes: &[u8], offset: usize) -> u128 {
    u128::from_le_bytes(at(bytes, offset))
}

/// Text in a field that is padded with spaces or zeroes; what is not printable is replaced.
pub(super) fn text_at(bytes: &[u8], range: std::ops::Range<usize>) -> String {
    let text: String = bytes[range]
        .iter()
        .take_while(|byte| **byte != 0)
        .map(|byte| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '?' })
        .collect();
    text.trim().to_owned()
}
