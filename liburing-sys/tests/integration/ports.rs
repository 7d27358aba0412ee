//! The functions written in Rust do to memory what the compiled ones do, and return the same.
//!
//! Each is called beside the header's own from the same memory, at the same address: everything that the two leave
//! there is compared. `PROPTEST_CASES` says how many random cases are tried, `PROPTEST_RNG_SEED` the same ones again.

use std::array;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::ffi::{c_int, c_uint, c_ushort, c_void};
use std::fmt::Debug;
use std::hint;
use std::mem::offset_of;
use std::panic;
use std::ptr;
use std::sync::OnceLock;

use liburing_sys as sys;
use liburing_sys::shims;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::prop_oneof;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use crate::c;

/// Places of the largest queue; those of large entries have room for two each.
const LARGEST: usize = 16;

// The headers before those that brought them do not have these.
const SETUP_NO_SQARRAY: u32 = 1 << 16;
const SETUP_CQE_MIXED: u32 = 1 << 18;
const CQE_F_SKIP: u32 = 1 << 5;
const CQE_F_32: u32 = 1 << 15;

/// What a library since 2.10 notes of a polled ring: to look for completions is to ask the kernel.
const INT_FLAG_CQ_ENTER: u8 = 4;
const CQ_ENTER_SINCE: sys::Version = sys::Version { major: 2, minor: 10 };

thread_local! {
    /// The ports that were called in this thread and did the same as what they stand for.
    static COMPARED: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
    /// How many random cases of a property this thread tries; what `PROPTEST_CASES` says if that is nothing.
    static CASES: Cell<Option<u32>> = const { Cell::new(None) };
}

fn note(name: &'static str) {
    COMPARED.with_borrow_mut(|compared| compared.insert(name));
}

/// Tries `property` with random values, and with smaller and smaller ones once it fails.
#[track_caller]
fn check<S: Strategy>(values: S, property: impl Fn(S::Value)) {
    let cases = CASES.get().unwrap_or(Config::default().cases);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4096, ..Config::default() };
    let outcome = TestRunner::new(config).run(&values, |value| {
        property(value);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// Random numbers, among which the edges are.
fn number() -> impl Strategy<Value = u64> {
    let power = (0..64).prop_map(|exponent| 1_u64 << exponent);
    prop_oneof![4 => any::<u64>(), 1 => Just(0), 1 => Just(u64::MAX), 1 => power, 1 => 0..9_u64]
}

/// Where a counter starts: anywhere, but most often just under its end.
fn counter() -> impl Strategy<Value = u32> {
    prop_oneof![2 => (0..24_u32).prop_map(|before| u32::MAX - before), 1 => any::<u32>()]
}

/// Random flags, and a fair share of none.
fn flags() -> impl Strategy<Value = u32> {
    prop_oneof![3 => any::<u32>(), 1 => Just(0)]
}

/// What the preparations and the setters take.
#[derive(Clone, Copy, Debug)]
struct Arguments {
    fd: c_int,
    int: c_int,
    uint: c_uint,
    size: usize,
    number: u64,
    length: u64,
    pointer: *mut c_void,
    iovecs: *const libc::iovec,
}

fn arguments() -> impl Strategy<Value = Arguments> {
    [(); 6].map(|()| number()).prop_map(|[fd, int, uint, number, length, address]| Arguments {
        fd: fd as c_int,
        int: int as c_int,
        uint: uint as c_uint,
        size: length as usize,
        number,
        length,
        pointer: ptr::without_provenance_mut(address as usize),
        iovecs: ptr::without_provenance(address as usize),
    })
}

type Fill = unsafe fn(*mut sys::io_uring_sqe, Arguments);

/// A port that writes to an entry, and the compiled function that it stands for.
#[derive(Clone, Copy, Debug)]
struct Filling {
    name: &'static str,
    ported: Fill,
    compiled: Fill,
}

macro_rules! fillings {
    ( $( $(#[$attribute:meta])* $name:ident($($argument:ident),*); )* ) => { [ $(
        $(#[$attribute])*
        Filling {
            name: stringify!($name),
            // SAFETY: the caller's entry, which nobody submits.
            ported: |sqe, arguments| unsafe { sys::$name(sqe, $(arguments.$argument),*) },
            // SAFETY: as above.
            compiled: |sqe, arguments| unsafe { shims::$name(sqe, $(arguments.$argument),*) },
        },
    )* ] };
}

const FILLINGS: &[Filling] = &fillings! {
    io_uring_prep_cancel64(number, int);
    io_uring_prep_close(fd);
    io_uring_prep_fsync(fd, uint);
    io_uring_prep_poll_add(fd, uint);
    io_uring_prep_read(fd, pointer, uint, number);
    io_uring_prep_read_fixed(fd, pointer, uint, number, int);
    io_uring_prep_readv(fd, iovecs, uint, number);
    io_uring_prep_recv(fd, pointer, size, int);
    io_uring_prep_send(fd, pointer, size, int);
    #[cfg(liburing_2_13)]
    io_uring_prep_uring_cmd(int, fd);
    io_uring_prep_write(fd, pointer, uint, number);
    io_uring_prep_write_fixed(fd, pointer, uint, number, int);
    io_uring_prep_writev(fd, iovecs, uint, number);
    io_uring_sqe_set_data(pointer);
    io_uring_sqe_set_data64(number);
    io_uring_sqe_set_flags(uint);
};

/// Those whose form is another, or that some headers lack or declare with other types.
#[allow(trivial_numeric_casts, reason = "off_t in the header of 2.3")]
const ODD_FILLINGS: &[Filling] = &[
    Filling {
        name: "io_uring_prep_nop",
        // SAFETY: the caller's entry, which nobody submits.
        ported: |sqe, _| unsafe { sys::io_uring_prep_nop(sqe) },
        // SAFETY: as above.
        compiled: |sqe, _| unsafe { shims::io_uring_prep_nop(sqe) },
    },
    Filling {
        name: "io_uring_prep_rw",
        // SAFETY: as above.
        ported: |sqe, a| unsafe { sys::io_uring_prep_rw(a.int, sqe, a.fd, a.pointer, a.uint, a.number) },
        // SAFETY: as above.
        compiled: |sqe, a| unsafe { shims::io_uring_prep_rw(a.int, sqe, a.fd, a.pointer, a.uint, a.number) },
    },
    Filling {
        name: "io_uring_prep_fallocate",
        // SAFETY: as above.
        ported: |sqe, a| unsafe { sys::io_uring_prep_fallocate(sqe, a.fd, a.int, a.number, a.length) },
        // SAFETY: as above.
        compiled: |sqe, a| unsafe {
            shims::io_uring_prep_fallocate(sqe, a.fd, a.int, a.number as _, a.length as _);
        },
    },
    Filling {
        name: "io_uring_prep_uring_cmd",
        // SAFETY: as above.
        ported: |sqe, a| unsafe { sys::io_uring_prep_uring_cmd(sqe, a.int, a.fd) },
        // What people wrote before 2.13: the command lies where others have the first half of the offset.
        compiled: |sqe, a| {
            let mut command = [0; 8];
            command[..4].copy_from_slice(&a.int.to_ne_bytes());
            let (op, command) = (sys::IORING_OP_URING_CMD as c_int, u64::from_ne_bytes(command));
            // SAFETY: as above.
            unsafe { shims::io_uring_prep_rw(op, sqe, a.fd, ptr::null(), 0, command) };
        },
    },
];

fn fillings() -> impl Iterator<Item = Filling> {
    [FILLINGS, ODD_FILLINGS].into_iter().flatten().copied()
}

/// What a ring without a kernel consists of: the test moves the kernel's counters.
#[repr(C)]
struct Memory {
    ring: sys::io_uring,
    sq_head: u32,
    sq_flags: u32,
    cq_head: u32,
    cq_tail: u32,
    sq_array: [u32; LARGEST],
    buffers: [[u64; 2]; LARGEST],
    sqes: [[u64; 8]; 2 * LARGEST],
    cqes: [[u64; 2]; 2 * LARGEST],
}

const WORDS: usize = size_of::<Memory>() / 8;

const _: () = assert!(align_of::<Memory>() == 8 && WORDS * 8 == size_of::<Memory>());

/// Of what kind a ring is, and in which state it starts.
#[derive(Clone, Debug)]
struct Shape {
    flags: u32,
    features: u32,
    sq_entries: usize,
    cq_entries: usize,
    buffers: usize,
    sq_start: u32,
    cq_start: u32,
    buffer_start: u16,
    /// What the memory is full of at first.
    contents: u64,
}

/// Rings of all kinds, those that the header does not know included: unknown flags change nothing.
fn shape() -> impl Strategy<Value = Shape> {
    let entries = || prop_oneof![Just(1_usize), Just(2), Just(4), Just(8), Just(LARGEST)];
    let buffer_start = prop_oneof![2 => 0xfff0..=0xffff_u16, 1 => any::<u16>()];
    let sizes = (entries(), entries(), entries());
    let starts = (counter(), counter(), buffer_start);
    (flags(), flags(), sizes, starts, any::<u64>()).prop_map(|(flags, features, sizes, starts, contents)| Shape {
        flags,
        features,
        sq_entries: sizes.0,
        cq_entries: sizes.1,
        buffers: sizes.2,
        sq_start: starts.0,
        cq_start: starts.1,
        buffer_start: starts.2,
        contents,
    })
}

/// Calls a port, and the compiled function of the same name, by [`FakeRing::compare`].
macro_rules! both {
    ( $fake:expr, $name:ident, |$function:ident| $call:expr ) => {
        both!($fake, $name, |$function| $call, |_| {})
    };
    ( $fake:expr, $name:ident, |$function:ident| $call:expr, $correct:expr ) => {
        $fake.compare(
            stringify!($name),
            || {
                let $function = sys::$name;
                // SAFETY: the memory is the fake ring's, which is in a state that a kernel could have left it in; its
                // descriptor is nobody's.
                unsafe { $call }
            },
            || {
                let $function = shims::$name;
                // SAFETY: as above.
                unsafe { $call }
            },
            $correct,
        )
    };
}

struct FakeRing {
    memory: *mut Memory,
    shape: Shape,
    /// Positions in the completion queue at which entries start, and the end of the last one.
    starts: VecDeque<u32>,
    /// The entry that was last got.
    sqe: *mut sys::io_uring_sqe,
    /// The completion that was last looked at, until it is given back.
    cqe: *mut sys::io_uring_cqe,
}

impl FakeRing {
    fn new(shape: Shape) -> Self {
        let words: [u64; WORDS] = array::from_fn(|index| shape.contents.rotate_left(index as u32) ^ index as u64);
        let memory: *mut Memory = Box::into_raw(Box::new(words)).cast();
        // SAFETY: the fields are integers and pointers, of which all are initialised; nothing else has the memory.
        unsafe {
            // Whatever is not set here must not be read.
            let ring = &raw mut (*memory).ring;
            ring.write_bytes(0, 1);
            (*ring).flags = shape.flags;
            (*ring).features = shape.features;
            if shape.flags & sys::IORING_SETUP_IOPOLL != 0 && sys::library_version() >= Some(CQ_ENTER_SINCE) {
                (*ring).int_flags = INT_FLAG_CQ_ENTER;
            }
            (*ring).ring_fd = -1;
            (*ring).enter_ring_fd = -1;
            (*ring).sq.khead = &raw mut (*memory).sq_head;
            (*ring).sq.kflags = &raw mut (*memory).sq_flags;
            if shape.flags & SETUP_NO_SQARRAY == 0 {
                (*ring).sq.array = (&raw mut (*memory).sq_array).cast();
            }
            (*ring).sq.sqes = (&raw mut (*memory).sqes).cast();
            (*ring).sq.sqe_head = shape.sq_start;
            (*ring).sq.sqe_tail = shape.sq_start;
            (*ring).sq.ring_mask = shape.sq_entries as u32 - 1;
            (*ring).sq.ring_entries = shape.sq_entries as u32;
            (*ring).cq.khead = &raw mut (*memory).cq_head;
            (*ring).cq.ktail = &raw mut (*memory).cq_tail;
            (*ring).cq.cqes = (&raw mut (*memory).cqes).cast();
            (*ring).cq.ring_mask = shape.cq_entries as u32 - 1;
            (*ring).cq.ring_entries = shape.cq_entries as u32;
            // Whoever looks into a wrong place finds an entry there, and does not go past the end and on for ever.
            for entry in &mut (*memory).cqes {
                entry[1] &= !half_and_half(0, CQE_F_SKIP | CQE_F_32);
            }
            (*memory).sq_head = shape.sq_start;
            (*memory).sq_flags = 0;
            (*memory).cq_head = shape.cq_start;
            (*memory).cq_tail = shape.cq_start;
        }
        let starts = VecDeque::from([shape.cq_start]);
        let mut fake = Self { memory, shape, starts, sqe: ptr::null_mut(), cqe: ptr::null_mut() };
        let start = c_int::from(fake.shape.buffer_start);
        let br = fake.buffers();
        both!(fake, io_uring_buf_ring_init, |init| init(br));
        both!(fake, io_uring_buf_ring_advance, |advance| advance(br, start));
        fake
    }

    fn ring(&self) -> *mut sys::io_uring {
        // SAFETY: a field of our own memory.
        unsafe { &raw mut (*self.memory).ring }
    }

    fn buffers(&self) -> *mut sys::io_uring_buf_ring {
        // SAFETY: a field of our own memory.
        unsafe { (&raw mut (*self.memory).buffers).cast() }
    }

    fn words(&self) -> &[u64; WORDS] {
        // SAFETY: as many initialised words, and whoever writes to them borrows the ring for that.
        unsafe { &*self.memory.cast() }
    }

    /// Whether the rings' flags have `flag`.
    fn is(&self, flag: u32) -> bool {
        self.shape.flags & flag != 0
    }

    /// Has a port and the compiled function, called `name`, do their work from the same start.
    ///
    /// They return the same and leave the same memory behind, with which the test goes on; `correct` makes the
    /// compiled function's memory what it is by intention.
    #[track_caller]
    fn compare<R: PartialEq + Debug>(
        &mut self,
        name: &'static str,
        ported: impl FnOnce() -> R,
        compiled: impl FnOnce() -> R,
        correct: impl FnOnce(&R),
    ) -> R {
        let before = *self.words();
        let returned = ported();
        let after = *self.words();
        // SAFETY: our own memory, which nothing refers to now.
        unsafe { self.memory.cast::<[u64; WORDS]>().write(before) };
        let expected = compiled();
        correct(&expected);
        assert_eq!(returned, expected, "{name} returns something else");
        if after != *self.words() {
            let (ported, compiled, word) = first_difference(&after, self.words());
            panic!("{name} makes {} {ported:#018x}, not {compiled:#018x}", part_at(8 * word));
        }
        note(name);
        returned
    }

    /// As the kernel does it: nothing where there is no room.
    fn complete(&mut self, completion: Completion) {
        let Completion { user_data, res, mut flags, payload } = completion;
        if !self.is(SETUP_CQE_MIXED) || self.is(sys::IORING_SETUP_CQE32) {
            flags &= !(CQE_F_SKIP | CQE_F_32);
        }
        let places = self.shape.cq_entries;
        let double = flags & CQE_F_32 != 0 && places > 1;
        if !double {
            flags &= !CQE_F_32;
        }
        // SAFETY: a field of our own memory.
        let (head, tail) = unsafe { ((*self.memory).cq_head, (*self.memory).cq_tail) };
        // An entry of two places does not go around the end: one without meaning goes before.
        let filled = double && tail as usize % places == places - 1;
        if tail.wrapping_sub(head) as usize + usize::from(filled) + 1 + usize::from(double) > places {
            return;
        }
        if filled {
            self.put([payload, half_and_half(0, CQE_F_SKIP)], [0; 2]);
            self.end_entry();
        }
        // Headers that do not know of large entries take the second half for an entry; others only by mistake, as above.
        let harmless = payload & !half_and_half(0, CQE_F_SKIP | CQE_F_32);
        self.put([user_data, half_and_half(res, flags)], [payload, harmless]);
        if double {
            self.put([payload, harmless], [0; 2]);
        }
        self.end_entry();
    }

    /// Writes to the next place, and where places have 32 bytes `more`.
    fn put(&mut self, entry: [u64; 2], more: [u64; 2]) {
        // SAFETY: fields of our own memory.
        let (tail, cqes) = unsafe { (&mut (*self.memory).cq_tail, &mut (*self.memory).cqes) };
        let index = *tail as usize % self.shape.cq_entries;
        if self.shape.flags & sys::IORING_SETUP_CQE32 == 0 {
            cqes[index] = entry;
        } else {
            (cqes[2 * index], cqes[2 * index + 1]) = (entry, more);
        }
        *tail = tail.wrapping_add(1);
    }

    fn end_entry(&mut self) {
        // SAFETY: a field of our own memory.
        self.starts.push_back(unsafe { (*self.memory).cq_tail });
    }

    /// How many places the first entries take, of a number of entries that `choice` chooses.
    fn some_places(&mut self, choice: usize) -> c_uint {
        // SAFETY: a field of our own memory.
        let head = unsafe { (*self.memory).cq_head };
        while self.starts.front().is_some_and(|start| start.wrapping_sub(head) > LARGEST as u32) {
            self.starts.pop_front();
        }
        self.starts[choice % self.starts.len()].wrapping_sub(head)
    }

    /// Compares what the functions tell that change nothing.
    fn observe(&mut self) {
        let ring = self.ring();
        both!(self, io_uring_sq_ready, |ready| ready(ring));
        both!(self, io_uring_sq_space_left, |left| left(ring));
        both!(self, io_uring_cq_ready, |ready| ready(ring));
        both!(self, io_uring_cq_has_overflow, |overflow| overflow(ring));
    }

    /// Compares the walk over all completions, which `io_uring_for_each_cqe` is, with the header's loop.
    fn walk(&mut self) {
        let ring = self.ring();
        let ported = || {
            // SAFETY: our own ring, which has no kernel.
            let walk = unsafe { sys::io_uring_for_each_cqe(ring) };
            walk.take(2 * LARGEST).collect::<Vec<_>>()
        };
        let compiled = || {
            let mut met = [ptr::null_mut(); 2 * LARGEST];
            // SAFETY: as above, and as many places.
            let count = unsafe { (macros().walk)(ring, met.as_mut_ptr(), met.len() as c_uint) };
            met[..count as usize].to_vec()
        };
        self.compare("io_uring_for_each_cqe", ported, compiled, |_| {});
    }
}

impl Drop for FakeRing {
    fn drop(&mut self) {
        // SAFETY: made of such a box in `new`.
        drop(unsafe { Box::from_raw(self.memory.cast::<[u64; WORDS]>()) });
    }
}

/// The first words that differ, and where they are.
fn first_difference(some: &[u64; WORDS], others: &[u64; WORDS]) -> (u64, u64, usize) {
    let mut pairs = some.iter().zip(others).zip(0..);
    let ((&one, &other), word) = pairs.find(|((one, other), _)| one != other).expect("a difference");
    (one, other, word)
}

/// Names the field of [`Memory`] at an offset.
fn part_at(offset: usize) -> String {
    let parts = [
        ("struct io_uring", offset_of!(Memory, ring), 0),
        ("the kernel's counters", offset_of!(Memory, sq_head), 0),
        ("the submission queue's array", offset_of!(Memory, sq_array), 0),
        ("buffer", offset_of!(Memory, buffers), 16),
        ("sqe", offset_of!(Memory, sqes), 64),
        ("cqe", offset_of!(Memory, cqes), 16),
    ];
    let (name, start, size) = parts.into_iter().rev().find(|part| part.1 <= offset).expect("a part");
    match (offset - start).checked_rem(size) {
        None => format!("{name}, byte {}", offset - start),
        Some(byte) => format!("{name} {}, byte {byte}", (offset - start) / size),
    }
}

/// As two integers lie in memory.
fn half_and_half(first: i32, second: u32) -> u64 {
    let [first, second] = [first.to_ne_bytes(), second.to_ne_bytes()];
    u64::from_ne_bytes(array::from_fn(|byte| if byte < 4 { first[byte] } else { second[byte - 4] }))
}

/// What `io_uring_get_sqe` does to an entry since 2.6.
fn clear_optional_fields(sqe: *mut sys::io_uring_sqe) {
    for (start, count) in [(1, 3), (28, 4), (40, 24)] {
        // SAFETY: bytes of the caller's entry.
        unsafe { sqe.cast::<u8>().add(start).write_bytes(0, count) };
    }
}

/// What a program and its kernel do to a submission queue.
#[derive(Clone, Debug)]
enum Submission {
    Get,
    /// Writes to the entry that was last got, which is full of something else before.
    Fill(Filling, Arguments, u64),
    /// The kernel takes so many entries, if there are.
    Consume(u32),
    /// The kernel's flags change.
    Tell(u32),
}

fn submission() -> impl Strategy<Value = Submission> {
    let filling = select(fillings().collect::<Vec<_>>());
    let fill = (filling, arguments(), number());
    prop_oneof![
        6 => Just(Submission::Get),
        4 => fill.prop_map(|(filling, arguments, contents)| Submission::Fill(filling, arguments, contents)),
        3 => (0..=LARGEST as u32).prop_map(Submission::Consume),
        1 => flags().prop_map(Submission::Tell),
    ]
}

impl FakeRing {
    fn submit(&mut self, step: Submission) {
        let ring = self.ring();
        match step {
            Submission::Get => {
                let sqe = both!(self, io_uring_get_sqe, |get| get(ring), |sqe| {
                    if cfg!(not(liburing_2_6)) && !sqe.is_null() {
                        clear_optional_fields(*sqe);
                    }
                });
                if !sqe.is_null() {
                    self.sqe = sqe;
                }
            }
            Submission::Fill(Filling { name, ported, compiled }, arguments, contents) => {
                let sqe = self.sqe;
                if sqe.is_null() {
                    return;
                }
                let words = if self.is(sys::IORING_SETUP_SQE128) { 16 } else { 8 };
                for word in 0..words {
                    // SAFETY: words of an entry that was got from this ring.
                    unsafe { sqe.cast::<u64>().add(word).write(contents.rotate_left(word as u32)) };
                }
                // SAFETY: as above; both only write to it.
                self.compare(
                    name,
                    || unsafe { ported(sqe, arguments) },
                    || unsafe { compiled(sqe, arguments) },
                    |()| {},
                );
            }
            Submission::Consume(count) => {
                // SAFETY: fields of our own memory.
                let (head, tail) = unsafe { (&mut (*self.memory).sq_head, (*self.memory).ring.sq.sqe_tail) };
                *head = head.wrapping_add(count.min(tail.wrapping_sub(*head)));
            }
            // SAFETY: as above.
            Submission::Tell(flags) => unsafe { (*self.memory).sq_flags = flags },
        }
    }
}

/// What the kernel puts into a completion queue; in large entries `payload` besides.
#[derive(Clone, Debug)]
struct Completion {
    user_data: u64,
    res: i32,
    flags: u32,
    payload: u64,
}

/// The functions that look for a completion.
#[derive(Clone, Debug)]
enum Look {
    Inside,
    InsideUncounted,
    Peek,
    Wait,
    WaitForSome(c_uint),
}

/// Whether an entry that was given back comes with an error: C's functions do that in 2.13 and 2.14, none in Rust does.
fn hands_out_what_is_gone() -> bool {
    let does =
        |version: sys::Version| (version.major, version.minor) >= (2, 13) && (version.major, version.minor) < (2, 15);
    does(sys::HEADER_VERSION) || sys::library_version().is_some_and(does)
}

/// What a program and its kernel do to a completion queue and to a buffer ring.
#[derive(Clone, Debug)]
enum Reaping {
    Complete(Completion),
    /// The kernel's flags change.
    Tell(u32),
    Look(Look),
    /// Gives the completion back that was looked at, or null if there is none.
    See,
    /// Gives some completions back, of which the number says how many.
    Advance(usize),
    AddBuffer(*mut c_void, c_uint, c_ushort, c_int),
    AdvanceBuffers(c_int),
    /// Gives some completions back, and as many buffers.
    AdvanceBoth(usize),
    /// Gives some completions back, and so many buffers.
    AdvanceEach(usize, c_int),
}

fn reaping() -> impl Strategy<Value = Reaping> {
    let completion = (number(), number(), flags(), number()).prop_map(|(user_data, res, flags, payload)| {
        Reaping::Complete(Completion { user_data, res: res as i32, flags, payload })
    });
    let look = prop_oneof![
        Just(Look::Inside),
        Just(Look::InsideUncounted),
        Just(Look::Peek),
        Just(Look::Wait),
        (0..3_u32).prop_map(Look::WaitForSome),
    ];
    // C's sum of tail and offset does not overflow.
    let offset = prop_oneof![0..LARGEST as c_int, -70_000..70_000_i32];
    let count = || prop_oneof![0..=LARGEST as c_int, -70_000..70_000_i32];
    let buffer = (number(), any::<u32>(), any::<u16>(), offset).prop_map(|(address, length, number, offset)| {
        Reaping::AddBuffer(ptr::without_provenance_mut(address as usize), length, number, offset)
    });
    prop_oneof![
        10 => completion,
        1 => flags().prop_map(Reaping::Tell),
        6 => look.prop_map(Reaping::Look),
        4 => Just(Reaping::See),
        2 => any::<usize>().prop_map(Reaping::Advance),
        3 => buffer,
        1 => count().prop_map(Reaping::AdvanceBuffers),
        1 => any::<usize>().prop_map(Reaping::AdvanceBoth),
        1 => (any::<usize>(), count()).prop_map(|(choice, count)| Reaping::AdvanceEach(choice, count)),
    ]
}

impl FakeRing {
    fn reap(&mut self, step: Reaping) {
        let (ring, br) = (self.ring(), self.buffers());
        let buffers = self.shape.buffers as u32;
        match step {
            Reaping::Complete(completion) => self.complete(completion),
            // SAFETY: a field of our own memory.
            Reaping::Tell(flags) => unsafe { (*self.memory).sq_flags = flags },
            Reaping::Look(look) => self.look(look),
            Reaping::See => {
                let cqe = self.cqe;
                both!(self, io_uring_cqe_seen, |seen| seen(ring, cqe));
                self.cqe = ptr::null_mut();
            }
            Reaping::Advance(choice) => {
                let places = self.some_places(choice);
                both!(self, io_uring_cq_advance, |advance| advance(ring, places));
                self.cqe = ptr::null_mut();
            }
            Reaping::AddBuffer(address, length, number, offset) => {
                let mask = both!(self, io_uring_buf_ring_mask, |mask| mask(buffers));
                both!(self, io_uring_buf_ring_add, |add| add(br, address, length, number, mask, offset));
            }
            Reaping::AdvanceBuffers(count) => {
                both!(self, io_uring_buf_ring_advance, |advance| advance(br, count));
            }
            Reaping::AdvanceBoth(choice) => {
                let places = self.some_places(choice) as c_int;
                both!(self, io_uring_buf_ring_cq_advance, |advance| advance(ring, br, places));
                self.cqe = ptr::null_mut();
            }
            Reaping::AdvanceEach(choice, count) => {
                let places = self.some_places(choice) as c_int;
                // The header has it since 2.4.
                #[cfg(liburing_2_4)]
                both!(self, __io_uring_buf_ring_cq_advance, |advance| advance(ring, br, places, count));
                #[cfg(not(liburing_2_4))]
                self.compare(
                    "__io_uring_buf_ring_cq_advance",
                    // SAFETY: our own rings, which no kernel knows.
                    || unsafe { sys::__io_uring_buf_ring_cq_advance(ring, br, places, count) },
                    // SAFETY: as above.
                    || unsafe {
                        shims::io_uring_buf_ring_advance(br, count);
                        shims::io_uring_cq_advance(ring, places as c_uint);
                    },
                    |()| {},
                );
                self.cqe = ptr::null_mut();
            }
        }
    }

    fn look(&mut self, look: Look) {
        let ring = self.ring();
        // Both places have to be written to, where there is nothing to be found as well.
        let search = |look: &dyn Fn(*mut *mut sys::io_uring_cqe, *mut c_uint) -> c_int| {
            let (mut cqe, mut available) = (ptr::without_provenance_mut(1), c_uint::MAX);
            let result = look(&raw mut cqe, &raw mut available);
            if result < 0 && hands_out_what_is_gone() {
                cqe = ptr::null_mut();
            }
            (result, cqe, available)
        };
        let (_, cqe, _) = match look {
            Look::Inside => {
                both!(self, __io_uring_peek_cqe, |peek| search(&|cqe, available| peek(ring, cqe, available)))
            }
            Look::InsideUncounted => {
                both!(self, __io_uring_peek_cqe, |peek| search(&|cqe, _| peek(ring, cqe, ptr::null_mut())))
            }
            Look::Peek => both!(self, io_uring_peek_cqe, |peek| search(&|cqe, _| peek(ring, cqe))),
            Look::Wait => both!(self, io_uring_wait_cqe, |wait| search(&|cqe, _| wait(ring, cqe))),
            Look::WaitForSome(count) => {
                both!(self, io_uring_wait_cqe_nr, |wait| search(&|cqe, _| wait(ring, cqe, count)))
            }
        };
        self.cqe = cqe;
        if cqe.is_null() {
            return;
        }
        both!(self, io_uring_cqe_get_data64, |data| data(cqe));
        both!(self, io_uring_cqe_get_data, |data| data(cqe));
        #[cfg(liburing_2_13)]
        both!(self, io_uring_cqe_nr, |nr| nr(cqe));
        // SAFETY: an entry of our own ring.
        #[cfg(not(liburing_2_13))]
        self.compare("io_uring_cqe_nr", || unsafe { sys::io_uring_cqe_nr(cqe) }, || 1, |_| {});
    }
}

#[test]
fn entries_are_filled_alike() {
    let previous = array::from_fn::<_, 16, _>(|_| number());
    check((previous, arguments()), |(previous, arguments)| {
        for Filling { name, ported, compiled } in fillings() {
            let (mut by_port, mut by_shim) = (previous, previous);
            // SAFETY: entries of our own, and as much memory again behind them.
            unsafe {
                ported(by_port.as_mut_ptr().cast(), arguments);
                compiled(by_shim.as_mut_ptr().cast(), arguments);
            }
            assert_eq!(by_port, by_shim, "{name}");
            note(name);
        }
    });
}

#[test]
fn submission_queues_change_alike() {
    check((shape(), vec(submission(), 1..80)), |(shape, steps)| {
        let mut fake = FakeRing::new(shape);
        for step in steps {
            fake.submit(step);
            fake.observe();
        }
    });
}

#[test]
fn completion_queues_and_buffer_rings_change_alike() {
    macros();
    check((shape(), vec(reaping(), 1..80)), |(shape, steps)| {
        let mut fake = FakeRing::new(shape);
        for step in steps {
            fake.reap(step);
            fake.observe();
            fake.walk();
        }
    });
}

/// In every state of the counters, those that no kernel leaves included.
#[test]
fn counters_are_told_alike() {
    let counters = array::from_fn::<_, 4, _>(|_| counter());
    check((shape(), counters, flags(), number()), |(shape, counters, flags, count)| {
        let mut fake = FakeRing::new(shape);
        // SAFETY: fields of the ring's own memory.
        unsafe {
            let memory = &mut *fake.memory;
            [memory.sq_head, memory.ring.sq.sqe_tail, memory.cq_head, memory.cq_tail] = counters;
            memory.sq_flags = flags;
        }
        fake.observe();
        let ring = fake.ring();
        both!(fake, io_uring_buf_ring_mask, |mask| mask(count as u32));
        both!(fake, io_uring_cq_advance, |advance| advance(ring, count as c_uint));
        fake.observe();
    });
}

/// `tests/integration/c/macros.c`.
#[derive(Clone, Copy)]
struct Macros {
    cqe_shift: unsafe extern "C" fn(*const sys::io_uring) -> c_uint,
    cqe_index: unsafe extern "C" fn(*const sys::io_uring, c_uint, c_uint) -> c_uint,
    walk: unsafe extern "C" fn(*mut sys::io_uring, *mut *mut sys::io_uring_cqe, c_uint) -> c_uint,
    header_version: unsafe extern "C" fn() -> c_uint,
    is_older: unsafe extern "C" fn(c_uint, c_uint) -> c_int,
    read_once: unsafe extern "C" fn(*mut c_uint) -> c_uint,
    write_once: unsafe extern "C" fn(*mut c_uint, c_uint),
    load_acquire: unsafe extern "C" fn(*mut c_uint) -> c_uint,
    store_release: unsafe extern "C" fn(*mut c_uint, c_uint),
    barrier: unsafe extern "C" fn(),
}

fn macros() -> Macros {
    static MACROS: OnceLock<Macros> = OnceLock::new();
    *MACROS.get_or_init(|| {
        let library = c::load(&c::shared_library::<&str>("macros.c", "macros.so", &[]), 0);
        // SAFETY: the functions have the types of the fields, and stay: the library is never closed.
        let macros = unsafe {
            Macros {
                cqe_shift: *library.get(b"cqe_shift").expect("a function"),
                cqe_index: *library.get(b"cqe_index").expect("a function"),
                walk: *library.get(b"walk").expect("a function"),
                header_version: *library.get(b"header_version").expect("a function"),
                is_older: *library.get(b"is_older").expect("a function"),
                read_once: *library.get(b"read_once").expect("a function"),
                write_once: *library.get(b"write_once").expect("a function"),
                load_acquire: *library.get(b"load_acquire").expect("a function"),
                store_release: *library.get(b"store_release").expect("a function"),
                barrier: *library.get(b"barrier").expect("a function"),
            }
        };
        std::mem::forget(library);
        // SAFETY: it returns a number.
        let version = unsafe { (macros.header_version)() };
        let bound = sys::HEADER_VERSION.major * 1000 + sys::HEADER_VERSION.minor;
        assert!(version == 0 || version == bound, "another header than that of the bindings: {version}, not {bound}");
        macros
    })
}

#[test]
fn macros_do_the_same() {
    let c = macros();
    check((shape(), number(), number()), |(shape, one, other)| {
        let mut fake = FakeRing::new(shape);
        let (ring, one, other) = (fake.ring(), one as c_uint, other as c_uint);
        // SAFETY: our own ring and a word of it, which only this thread uses.
        unsafe {
            let word = &raw mut (*fake.memory).sq_head;
            fake.compare("io_uring_cqe_shift", || sys::io_uring_cqe_shift(ring), || (c.cqe_shift)(ring), |_| {});
            fake.compare(
                "io_uring_cqe_index",
                || sys::io_uring_cqe_index(ring, one, other),
                || (c.cqe_index)(ring, one, other),
                |_| {},
            );
            fake.compare(
                "IO_URING_WRITE_ONCE",
                || sys::IO_URING_WRITE_ONCE(word, one),
                || (c.write_once)(word, one),
                |()| {},
            );
            fake.compare("IO_URING_READ_ONCE", || sys::IO_URING_READ_ONCE(word), || (c.read_once)(word), |_| {});
            fake.compare(
                "io_uring_smp_store_release",
                || sys::io_uring_smp_store_release(word, other),
                || (c.store_release)(word, other),
                |()| {},
            );
            fake.compare(
                "io_uring_smp_load_acquire",
                || sys::io_uring_smp_load_acquire(word),
                || (c.load_acquire)(word),
                |_| {},
            );
            fake.compare("io_uring_smp_mb", sys::io_uring_smp_mb, || (c.barrier)(), |()| {});
        }
    });
}

#[test]
fn versions_compare_alike() {
    let c = macros();
    let sys::Version { major, minor } = sys::HEADER_VERSION;
    for (major, minor) in (0..=major + 1).flat_map(|major| (0..=minor + 2).map(move |minor| (major, minor))) {
        let is_older = sys::HEADER_VERSION < sys::Version { major, minor };
        assert_eq!(sys::IO_URING_CHECK_VERSION(major, minor), is_older, "{major}.{minor}");
        // C has it since 2.4, and right since 2.6.
        if sys::HEADER_VERSION.minor >= 6 {
            // SAFETY: two numbers.
            assert_eq!(c_int::from(is_older), unsafe { (c.is_older)(major, minor) }, "{major}.{minor}");
        }
    }
    note("IO_URING_CHECK_VERSION");
}

/// A `+` where the counters have to wrap is an error in this build; without the checks it would go unseen.
#[test]
fn sums_are_checked() {
    if !cfg!(debug_assertions) {
        println!("skipped: an optimised build has no overflow checks");
        return;
    }
    let sum = panic::catch_unwind(|| hint::black_box(u32::MAX) + hint::black_box(1));
    assert!(sum.is_err(), "the profile turns overflow-checks off: {sum:?}");
}

/// What `src/lib.rs` exports from `inline.rs` and `macros.rs`.
fn exported_ports() -> BTreeSet<&'static str> {
    const SOURCE: &str = include_str!("../../src/lib.rs");
    let lists = [("\nports! {", '}'), ("pub use inline::", ';'), ("pub use macros::", ';')];
    let texts = lists.iter().flat_map(|(start, end)| {
        let rests = SOURCE.split(start).skip(1);
        rests.map(|rest| rest.split(*end).next().expect("the first"))
    });
    let words = texts.flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    words.filter(|word| word.trim_start_matches('_').to_lowercase().starts_with("io_uring_")).collect()
}

#[test]
fn every_port_is_compared() {
    CASES.set(Some(32));
    entries_are_filled_alike();
    submission_queues_change_alike();
    completion_queues_and_buffer_rings_change_alike();
    counters_are_told_alike();
    macros_do_the_same();
    versions_compare_alike();
    let exported = exported_ports();
    assert!(exported.len() > 40 && exported.contains("io_uring_get_sqe"), "{exported:?}");
    let compared = COMPARED.take();
    let forgotten: Vec<_> = exported.difference(&compared).collect();
    assert!(forgotten.is_empty(), "no test compares {forgotten:?} with the header's own");
}

/// Sizes and types of what a macro's cast or suffix says in C.
#[test]
fn constants_have_their_types() {
    let timeout: u64 = sys::LIBURING_UDATA_TIMEOUT;
    let any_index: u32 = sys::IORING_FILE_INDEX_ALLOC;
    assert_eq!((timeout, any_index), (u64::MAX, u32::MAX));
    let flags: [u32; 7] = [
        sys::IOSQE_FIXED_FILE,
        sys::IOSQE_IO_DRAIN,
        sys::IOSQE_IO_LINK,
        sys::IOSQE_IO_HARDLINK,
        sys::IOSQE_ASYNC,
        sys::IOSQE_BUFFER_SELECT,
        sys::IOSQE_CQE_SKIP_SUCCESS,
    ];
    assert_eq!(flags, array::from_fn(|bit| 1 << bit));
}
