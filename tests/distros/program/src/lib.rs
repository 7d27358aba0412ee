//! What the two programs have in common: a ring that is closed when it goes, and the library's name on the output.

use std::io;
use std::process;
use std::ptr;

use liburing_sys as sys;

/// The exit status of a program that was told why it cannot use liburing.
pub const REFUSED: i32 = 3;

/// A completion.
#[derive(Debug, PartialEq, Eq)]
pub struct Completion {
    /// What the entry was given.
    pub user_data: u64,
    /// What the operation returned.
    pub res: i32,
    /// The completion's flags.
    pub flags: u32,
}

/// A ring in a place of its own.
#[derive(Debug)]
pub struct Ring(Box<sys::io_uring>);

impl Ring {
    /// Sets a ring up, or says why not and ends the program: then there is nothing to be seen here.
    pub fn new(entries: u32) -> Self {
        Self::with_flags(entries, 0).unwrap_or_else(|error| {
            println!("skipped: io_uring_setup is refused here: {error}");
            process::exit(0);
        })
    }

    /// Sets a ring up.
    pub fn with_flags(entries: u32, flags: u32) -> io::Result<Self> {
        // SAFETY: integers and pointers, for which zero is a value.
        let mut ring: Box<sys::io_uring> = Box::new(unsafe { std::mem::zeroed() });
        // SAFETY: the ring has a place that it keeps until queue_exit.
        check(unsafe { sys::io_uring_queue_init(entries, &mut *ring, flags) })?;
        Ok(Self(ring))
    }

    /// Takes over a ring that was set up in another way.
    ///
    /// # Safety
    ///
    /// `ring` must be initialised, and used by nobody else.
    pub unsafe fn from_initialised(ring: Box<sys::io_uring>) -> Self {
        Self(ring)
    }

    /// The ring, for liburing's functions.
    pub fn as_ptr(&mut self) -> *mut sys::io_uring {
        &mut *self.0
    }

    /// An entry to be filled.
    #[track_caller]
    pub fn entry(&mut self) -> *mut sys::io_uring_sqe {
        // SAFETY: an initialised ring, which only this thread uses.
        let sqe = unsafe { sys::io_uring_get_sqe(self.as_ptr()) };
        assert!(!sqe.is_null(), "the submission queue is not full");
        sqe
    }

    /// Waits for a completion and takes it.
    #[track_caller]
    pub fn wait(&mut self) -> Completion {
        let mut cqe = ptr::null_mut();
        // SAFETY: an initialised ring, which only this thread uses; the entry is read before it is given back.
        unsafe {
            assert_eq!(sys::io_uring_wait_cqe(self.as_ptr(), &mut cqe), 0);
            self.take(cqe)
        }
    }

    /// Takes a completion.
    ///
    /// # Safety
    ///
    /// `cqe` must be the oldest completion of this ring.
    pub unsafe fn take(&mut self, cqe: *mut sys::io_uring_cqe) -> Completion {
        // SAFETY: the caller's entry.
        unsafe {
            let completion = Completion { user_data: (*cqe).user_data, res: (*cqe).res, flags: (*cqe).flags };
            sys::io_uring_cqe_seen(self.as_ptr(), cqe);
            completion
        }
    }

    /// Has nothing done, `count` times.
    #[track_caller]
    pub fn assert_works(&mut self, count: u64) {
        for number in 0..count {
            // SAFETY: a nop names no memory.
            unsafe {
                let sqe = self.entry();
                sys::io_uring_prep_nop(sqe);
                sys::io_uring_sqe_set_data64(sqe, number);
                assert_eq!(sys::io_uring_submit(self.as_ptr()), 1);
            }
            assert_eq!(self.wait(), Completion { user_data: number, res: 0, flags: 0 });
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: initialised, and not used after this.
        unsafe { sys::io_uring_queue_exit(self.as_ptr()) };
    }
}

/// What liburing returned, as an error where it is one.
pub fn check(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// Has the library found, or ends the program with its reason.
pub fn load() {
    if let Err(error) = sys::load() {
        eprintln!("refused: {error}");
        process::exit(REFUSED);
    }
}

/// Says which library runs.
pub fn tell_library() {
    let library = sys::library_version().expect("a library that runs has a version");
    let path = sys::library_path().expect("a library that runs is a file");
    println!("header {}, library {library} at {}", sys::HEADER_VERSION, path.display());
}

/// Checks that a text says of a function, which the library lacks, all that there is to know.
#[track_caller]
pub fn assert_says(text: &str, function: &str) {
    let library = sys::library_version().expect("a library that runs has a version");
    let since = sys::since(function).unwrap_or_else(|| panic!("{function} came with some version"));
    let (lacks, header) =
        (format!("liburing {library} has no {function}"), format!("header of {}", sys::HEADER_VERSION));
    for part in [lacks, format!(" with {since}"), header] {
        assert!(text.contains(&part), "no {part:?} in: {text}");
    }
}
