//! The functions written in Rust do to memory what the compiled ones do.

use std::array;
use std::ffi::{c_int, c_uint, c_void};
use std::mem;
use std::ptr;

use liburing_sys as sys;
use liburing_sys::shims;

const ROUNDS: usize = 2000;
const ENTRIES: usize = 8;

/// Sebastiano Vigna's `SplitMix64`, which throws in the numbers at the edges.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        match mixed % 16 {
            0 => 0,
            1 => u64::MAX,
            _ => mixed,
        }
    }

    fn below(&mut self, limit: u32) -> u32 {
        (self.next() % u64::from(limit)) as u32
    }

    fn int(&mut self) -> c_int {
        self.next() as c_int
    }

    fn uint(&mut self) -> c_uint {
        self.next() as c_uint
    }

    fn pointer(&mut self) -> *mut c_void {
        ptr::without_provenance_mut(self.next() as usize)
    }

    fn words<const N: usize>(&mut self) -> [u64; N] {
        array::from_fn(|_| self.next())
    }
}

/// Fills two copies of an entry with random bytes, and has each filled by one of the functions.
macro_rules! assert_same_entry {
    ( $random:expr, $name:ident( $($arg:expr),* ) ) => {
        let mut ported: [u64; 8] = $random.words();
        let mut compiled = ported;
        // SAFETY: entries of our own, which nobody submits.
        unsafe {
            sys::$name(ported.as_mut_ptr().cast(), $($arg),*);
            shims::$name(compiled.as_mut_ptr().cast(), $($arg),*);
        }
        assert_eq!(ported, compiled, stringify!($name));
    };
}

#[test]
fn preparations_write_the_same_entry() {
    let mut random = Random(1);
    for _ in 0..ROUNDS {
        let r = &mut random;
        let (fd, int, length, flags) = (r.int(), r.int(), r.uint(), r.uint());
        let (number, pointer, size) = (r.next(), r.pointer(), r.next() as usize);
        assert_same_entry!(r, io_uring_prep_nop());
        assert_same_entry!(r, io_uring_prep_read(fd, pointer, length, number));
        assert_same_entry!(r, io_uring_prep_write(fd, pointer, length, number));
        assert_same_entry!(r, io_uring_prep_readv(fd, pointer.cast(), length, number));
        assert_same_entry!(r, io_uring_prep_writev(fd, pointer.cast(), length, number));
        assert_same_entry!(r, io_uring_prep_read_fixed(fd, pointer, length, number, int));
        assert_same_entry!(r, io_uring_prep_write_fixed(fd, pointer, length, number, int));
        assert_same_entry!(r, io_uring_prep_send(fd, pointer, size, int));
        assert_same_entry!(r, io_uring_prep_recv(fd, pointer, size, int));
        assert_same_entry!(r, io_uring_prep_fsync(fd, flags));
        assert_same_entry!(r, io_uring_prep_poll_add(fd, flags));
        assert_same_entry!(r, io_uring_prep_cancel64(number, int));
        assert_same_entry!(r, io_uring_prep_close(fd));
        assert_same_entry!(r, io_uring_sqe_set_data64(number));
        assert_same_entry!(r, io_uring_sqe_set_data(pointer));
        assert_same_entry!(r, io_uring_sqe_set_flags(flags));
        #[cfg(liburing_2_13)]
        assert_same_entry!(r, io_uring_prep_uring_cmd(int, fd));
    }
}

/// Those whose form is another, or that the header of 2.3 lacks or types in another way.
#[test]
#[allow(trivial_numeric_casts, reason = "fallocate's offset is off_t in the header of 2.3")]
fn odd_preparations_write_the_same_entry() {
    let mut random = Random(2);
    for _ in 0..ROUNDS {
        let (fd, int, offset, length) = (random.int(), random.int(), random.next(), random.next());
        let before: [u64; 8] = random.words();
        let (mut ported, mut compiled) = (before, before);
        let mut command = [0; 8];
        command[..4].copy_from_slice(&int.to_ne_bytes());
        // SAFETY: entries of our own, which nobody submits.
        unsafe {
            let op = sys::IORING_OP_URING_CMD as c_int;
            let command = u64::from_ne_bytes(command);
            sys::io_uring_prep_uring_cmd(ported.as_mut_ptr().cast(), int, fd);
            shims::io_uring_prep_rw(op, compiled.as_mut_ptr().cast(), fd, ptr::null(), 0, command);
        }
        assert_eq!(ported, compiled);
        let (length_32, pointer) = (random.uint(), random.pointer());
        // SAFETY: as above.
        unsafe {
            let (p, c) = (ported.as_mut_ptr().cast(), compiled.as_mut_ptr().cast());
            sys::io_uring_prep_rw(int, p, fd, pointer, length_32, offset);
            shims::io_uring_prep_rw(int, c, fd, pointer, length_32, offset);
        }
        assert_eq!(ported, compiled);
        // SAFETY: as above.
        unsafe {
            sys::io_uring_prep_fallocate(ported.as_mut_ptr().cast(), fd, int, offset, length);
            shims::io_uring_prep_fallocate(compiled.as_mut_ptr().cast(), fd, int, offset as _, length as _);
        }
        assert_eq!(ported, compiled);
    }
}

/// A ring without a kernel: the test moves the kernel's counters.
struct FakeRing {
    ring: sys::io_uring,
    /// Submission head and flags, completion head and tail.
    counters: Vec<u32>,
    sqes: Vec<[u64; 8]>,
    cqes: Vec<[u64; 2]>,
}

const SQ_HEAD: usize = 0;
const SQ_FLAGS: usize = 1;
const CQ_HEAD: usize = 2;
const CQ_TAIL: usize = 3;

impl FakeRing {
    /// All counters start at `start`. Twice the entries, for the large ones.
    fn new(flags: u32, features: u32, start: u32, seed: u64) -> Self {
        let mut random = Random(seed);
        let mut fake = Self {
            // SAFETY: integers and pointers, for which zero is a value.
            ring: unsafe { mem::zeroed() },
            counters: vec![start, 0, start, start],
            sqes: (0..2 * ENTRIES).map(|_| random.words()).collect(),
            cqes: (0..2 * ENTRIES).map(|_| [0, 0]).collect(),
        };
        let counters = fake.counters.as_mut_ptr();
        fake.ring.flags = flags;
        fake.ring.features = features;
        fake.ring.ring_fd = -1;
        fake.ring.enter_ring_fd = -1;
        fake.ring.sq.khead = counters.wrapping_add(SQ_HEAD);
        fake.ring.sq.kflags = counters.wrapping_add(SQ_FLAGS);
        fake.ring.sq.sqes = fake.sqes.as_mut_ptr().cast();
        fake.ring.sq.sqe_head = start;
        fake.ring.sq.sqe_tail = start;
        fake.ring.sq.ring_mask = ENTRIES as u32 - 1;
        fake.ring.sq.ring_entries = ENTRIES as u32;
        fake.ring.cq.khead = counters.wrapping_add(CQ_HEAD);
        fake.ring.cq.ktail = counters.wrapping_add(CQ_TAIL);
        fake.ring.cq.cqes = fake.cqes.as_mut_ptr().cast();
        fake.ring.cq.ring_mask = ENTRIES as u32 - 1;
        fake.ring.cq.ring_entries = ENTRIES as u32;
        fake
    }

    /// As the kernel does: `None` where the queue is full.
    fn complete(&mut self, user_data: u64, res: i32, flags: u32) -> Option<()> {
        let (head, tail) = (self.counters[CQ_HEAD], self.counters[CQ_TAIL]);
        if tail.wrapping_sub(head) as usize >= ENTRIES {
            return None;
        }
        let shift = u32::from(self.ring.flags & sys::IORING_SETUP_CQE32 != 0);
        let index = ((tail & self.ring.cq.ring_mask) << shift) as usize;
        // As bytes lie in memory: res, then flags.
        let mut second = [0; 8];
        second[..4].copy_from_slice(&res.to_ne_bytes());
        second[4..].copy_from_slice(&flags.to_ne_bytes());
        self.cqes[index] = [user_data, u64::from_ne_bytes(second)];
        self.counters[CQ_TAIL] = tail.wrapping_add(1);
        Some(())
    }

    fn sqe_number(&self, sqe: *mut sys::io_uring_sqe) -> Option<usize> {
        let size = size_of::<sys::io_uring_sqe>();
        (!sqe.is_null()).then(|| (sqe.addr() - self.ring.sq.sqes.addr()) / size)
    }

    fn cqe_number(&self, cqe: *mut sys::io_uring_cqe) -> Option<usize> {
        (!cqe.is_null()).then(|| (cqe.addr() - self.ring.cq.cqes.addr()) / 16)
    }

    #[track_caller]
    fn assert_same(&self, compiled: &Self) {
        assert_eq!(self.counters, compiled.counters);
        assert_eq!(self.ring.sq.sqe_tail, compiled.ring.sq.sqe_tail);
        assert_eq!(self.sqes, compiled.sqes);
        assert_eq!(self.cqes, compiled.cqes);
    }
}

/// What `io_uring_get_sqe` does to an entry since 2.6.
fn clear_optional_fields(entry: &mut [u64; 8]) {
    let mut bytes: Vec<u8> = entry.iter().flat_map(|word| word.to_ne_bytes()).collect();
    for optional in [1..4, 28..32, 40..64] {
        bytes[optional].fill(0);
    }
    for (word, bytes) in entry.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
    }
}

/// Pairs of equal rings, whose counters soon pass `u32::MAX`.
fn pairs() -> impl Iterator<Item = (FakeRing, FakeRing)> {
    let sqpoll = [0, sys::IORING_SETUP_SQPOLL];
    let big = [0, sys::IORING_SETUP_SQE128 | sys::IORING_SETUP_CQE32];
    let features = [0, sys::IORING_FEAT_EXT_ARG];
    let rings = sqpoll.into_iter().flat_map(move |sqpoll| big.map(|big| sqpoll | big));
    rings.flat_map(move |flags| {
        features.map(|features| {
            let new = || FakeRing::new(flags, features, u32::MAX - 3, 3);
            (new(), new())
        })
    })
}

#[test]
fn submission_queues_change_alike() {
    let mut random = Random(4);
    for (mut ported, mut compiled) in pairs() {
        let mut got = 0;
        for _ in 0..ROUNDS {
            // SAFETY: the two rings are complete for what these functions read.
            unsafe {
                let (p, c) = (&raw mut ported.ring, &raw mut compiled.ring);
                assert_eq!(sys::io_uring_sq_ready(p), shims::io_uring_sq_ready(c));
                assert_eq!(sys::io_uring_sq_space_left(p), shims::io_uring_sq_space_left(c));
                if random.below(3) == 0 {
                    let ready = sys::io_uring_sq_ready(p);
                    let consumed = random.below(ready + 1);
                    for fake in [&mut ported, &mut compiled] {
                        fake.counters[SQ_HEAD] = fake.counters[SQ_HEAD].wrapping_add(consumed);
                    }
                } else {
                    let (sqe, of_shim) = (sys::io_uring_get_sqe(p), shims::io_uring_get_sqe(c));
                    let number = ported.sqe_number(sqe);
                    assert_eq!(number, compiled.sqe_number(of_shim));
                    if let Some(number) = number {
                        got += 1;
                        clear_optional_fields(&mut compiled.sqes[number]);
                        ported.assert_same(&compiled);
                        let words = random.words();
                        ported.sqes[number] = words;
                        compiled.sqes[number] = words;
                    }
                }
            }
            ported.assert_same(&compiled);
        }
        assert!(got > ROUNDS / 4, "the queue was full nearly always");
    }
}

#[test]
fn completion_queues_change_alike() {
    let mut random = Random(5);
    for (mut ported, mut compiled) in pairs() {
        let mut seen = 0;
        for _ in 0..ROUNDS {
            for _ in 0..random.below(3) {
                // Without IORING_FEAT_EXT_ARG all ones are the library's own timeout. No flags of
                // rings with entries of two sizes: they have a test of their own.
                let (user_data, res) = (random.next(), random.int());
                let flags = random.uint() & !(1 << 15 | 1 << 5);
                ported.complete(user_data, res, flags);
                compiled.complete(user_data, res, flags);
            }
            let (mut cqe, mut of_shim) = (ptr::null_mut(), ptr::null_mut());
            let (mut available, mut of_shim_available) = (0, 0);
            // SAFETY: the two rings are complete for what these functions read; the library looks
            // for more completions without a call of the kernel, as no flag asks for one.
            unsafe {
                let (p, c) = (&raw mut ported.ring, &raw mut compiled.ring);
                assert_eq!(sys::io_uring_cq_ready(p), shims::io_uring_cq_ready(c));
                let results = if random.below(2) == 0 {
                    let result = sys::__io_uring_peek_cqe(p, &mut cqe, &mut available);
                    (result, shims::__io_uring_peek_cqe(c, &mut of_shim, &mut of_shim_available))
                } else {
                    let result = sys::io_uring_peek_cqe(p, &mut cqe);
                    (result, shims::io_uring_peek_cqe(c, &mut of_shim))
                };
                assert_eq!(results.0, results.1);
                assert_eq!(available, of_shim_available);
                assert_eq!(ported.cqe_number(cqe), compiled.cqe_number(of_shim));
                if !cqe.is_null() {
                    seen += 1;
                    assert_eq!(sys::io_uring_cqe_get_data64(cqe), shims::io_uring_cqe_get_data64(of_shim));
                    assert_eq!(sys::io_uring_cqe_get_data(cqe), shims::io_uring_cqe_get_data(of_shim));
                }
                if random.below(4) == 0 {
                    let ready = sys::io_uring_cq_ready(p);
                    let walked = sys::io_uring_for_each_cqe(p).count();
                    assert_eq!(walked, ready as usize);
                    let nr = random.below(ready + 1);
                    sys::io_uring_cq_advance(p, nr);
                    shims::io_uring_cq_advance(c, nr);
                } else {
                    sys::io_uring_cqe_seen(p, cqe);
                    shims::io_uring_cqe_seen(c, of_shim);
                }
            }
            ported.assert_same(&compiled);
        }
        assert!(seen > ROUNDS / 8, "the queue was empty nearly always");
    }
}

#[test]
fn overflow_is_told_alike() {
    for flags in [0, 1, 2, 3, 4, 6, u32::MAX] {
        let mut fake = FakeRing::new(0, 0, 0, 0);
        fake.counters[SQ_FLAGS] = flags;
        // SAFETY: the ring is complete for what these functions read.
        unsafe {
            let told = sys::io_uring_cq_has_overflow(&fake.ring);
            assert_eq!(told, shims::io_uring_cq_has_overflow(&fake.ring));
            assert_eq!(told, flags & sys::IORING_SQ_CQ_OVERFLOW != 0);
        }
    }
}

#[test]
fn walk_meets_each_completion_once_in_order() {
    for flags in [0, sys::IORING_SETUP_CQE32] {
        let mut fake = FakeRing::new(flags, 0, u32::MAX - 3, 0);
        for user_data in 0..ENTRIES as u64 {
            fake.complete(user_data, 0, 0).expect("room");
        }
        // SAFETY: the ring is complete for what these functions read.
        unsafe {
            let walk = sys::io_uring_for_each_cqe(&fake.ring);
            let met: Vec<_> = walk.map(|cqe| sys::io_uring_cqe_get_data64(cqe)).collect();
            assert_eq!(met, (0..ENTRIES as u64).collect::<Vec<_>>());
            let large = flags != 0;
            assert_eq!(sys::io_uring_cqe_shift(&fake.ring), u32::from(large));
            assert_eq!(sys::io_uring_cqe_index(&fake.ring, 9, 7), if large { 2 } else { 1 });
        }
    }
}

/// Entries that are no completions, and entries of two places (since 2.13).
#[test]
fn mixed_entries_are_treated_alike() {
    let (skip, double) = (1 << 5, 1 << 15);
    let both = || {
        let mut fake = FakeRing::new(0, sys::IORING_FEAT_EXT_ARG, u32::MAX - 3, 0);
        for (user_data, flags) in [(1, skip), (2, double), (3, 0), (4, 0), (5, 0)] {
            fake.complete(user_data, 0, flags).expect("room");
        }
        fake
    };
    let (mut ported, mut compiled) = (both(), both());
    let (mut cqe, mut of_shim) = (ptr::null_mut(), ptr::null_mut());
    for _ in 0..2 {
        // SAFETY: the two rings are complete for what these functions read.
        unsafe {
            let (p, c) = (&raw mut ported.ring, &raw mut compiled.ring);
            assert_eq!(sys::io_uring_peek_cqe(p, &mut cqe), 0);
            assert_eq!(shims::io_uring_peek_cqe(c, &mut of_shim), 0);
            assert_eq!(ported.cqe_number(cqe), compiled.cqe_number(of_shim));
            #[cfg(liburing_2_13)]
            assert_eq!(sys::io_uring_cqe_nr(cqe), shims::io_uring_cqe_nr(of_shim));
            sys::io_uring_cqe_seen(p, cqe);
            shims::io_uring_cqe_seen(c, of_shim);
        }
        ported.assert_same(&compiled);
    }
}

#[test]
fn buffer_rings_change_alike() {
    let mut random = Random(6);
    let (mut ported, mut compiled) = ([[0_u64; 2]; ENTRIES], [[0_u64; 2]; ENTRIES]);
    let (p, c) = (ported.as_mut_ptr().cast(), compiled.as_mut_ptr().cast());
    // SAFETY: two rings of as many entries as the mask says, which no kernel knows.
    unsafe {
        let mask = sys::io_uring_buf_ring_mask(ENTRIES as u32);
        assert_eq!(mask, shims::io_uring_buf_ring_mask(ENTRIES as u32));
        sys::io_uring_buf_ring_init(p);
        shims::io_uring_buf_ring_init(c);
        // To just under where the tail's 16 bits end.
        sys::io_uring_buf_ring_advance(p, 0xfffd);
        shims::io_uring_buf_ring_advance(c, 0xfffd);
        for _ in 0..ROUNDS {
            let count = random.below(ENTRIES as u32) as c_int;
            for offset in 0..count {
                let (addr, len, bid) = (random.pointer(), random.uint(), random.next() as u16);
                sys::io_uring_buf_ring_add(p, addr, len, bid, mask, offset);
                shims::io_uring_buf_ring_add(c, addr, len, bid, mask, offset);
            }
            sys::io_uring_buf_ring_advance(p, count);
            shims::io_uring_buf_ring_advance(c, count);
            let entries = p.cast::<[[u64; 2]; ENTRIES]>().read();
            assert_eq!(entries, c.cast::<[[u64; 2]; ENTRIES]>().read());
        }
        let large = (sys::io_uring_buf_ring_mask(0), sys::io_uring_buf_ring_mask(1 << 15));
        assert_eq!(large, (shims::io_uring_buf_ring_mask(0), shims::io_uring_buf_ring_mask(1 << 15)));
    }
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
