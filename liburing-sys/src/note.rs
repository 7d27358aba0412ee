//! Tells a packager's tools of the dependency that `DT_NEEDED` does not show.
//!
//! The note is the one of the ELF dlopen metadata specification; `readelf --notes`, `dlopen-notes` and
//! `dh_dlopenlibdeps` read it in the finished program.

const DESCRIPTION: &[u8] = b"[{\"feature\":\"io_uring\",\"description\":\"Asynchronous input and output by io_uring\",\
\"priority\":\"recommended\",\"soname\":[\"liburing.so.2\"]}]\0";

/// Both texts end on a multiple of four.
#[repr(C, align(4))]
struct Note {
    name_size: u32,
    description_size: u32,
    kind: u32,
    name: [u8; 4],
    description: [u8; DESCRIPTION.len().next_multiple_of(4)],
}

// SAFETY: the section holds notes, one after the other, and this is one.
#[used]
#[unsafe(link_section = ".note.dlopen")]
static NOTE: Note = Note {
    name_size: 4,
    description_size: DESCRIPTION.len() as u32,
    kind: 0x407c_0c0a,
    name: *b"FDO\0",
    description: padded(DESCRIPTION),
};

const fn padded<const N: usize>(text: &[u8]) -> [u8; N] {
    let mut padded = [0; N];
    let mut index = 0;
    while index < text.len() {
        padded[index] = text[index];
        index += 1;
    }
    padded
}
