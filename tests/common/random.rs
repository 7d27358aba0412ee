//! Programs that chance writes, the same for the same seed.
//!
//! `SYSURING_MODEL_STEPS` is how many steps a test takes in all, over as many programs as that needs;
//! `SYSURING_MODEL_SEED` runs the one program with that seed, which is what a failing test prints.

use std::cell::Cell;
use std::io::Write;
use std::sync::Once;

/// Numbers that look like chance (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True once in `times` times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Runs programs until they took `steps` steps in all, or as many as the environment asks for. `program` runs one, and says
/// how many steps it took.
pub fn run_programs(steps: u64, mut program: impl FnMut(Random) -> u64) {
    print_seeds();
    if let Some(seed) = number("SYSURING_MODEL_SEED") {
        SEED.set(Some(seed));
        program(Random::new(seed));
        return SEED.set(None);
    }
    let steps = number("SYSURING_MODEL_STEPS").unwrap_or(steps);
    let mut seeds = Random::new(from_clock());
    let (mut taken, mut programs) = (0, 0);
    while taken < steps {
        let seed = seeds.next();
        SEED.set(Some(seed));
        taken += program(Random::new(seed));
        programs += 1;
        SEED.set(None);
    }
    println!("{taken} steps in {programs} programs");
}

/// Runs one program, however many steps the environment asks for.
pub fn run_one(program: impl FnOnce(Random)) {
    print_seeds();
    let seed = number("SYSURING_MODEL_SEED").unwrap_or_else(|| Random::new(from_clock()).next());
    println!("SYSURING_MODEL_SEED={seed:#x}");
    SEED.set(Some(seed));
    program(Random::new(seed));
    SEED.set(None);
}

/// Has a thread of its own do a part of the program that this one runs.
pub fn in_thread<R: Send>(part: impl FnOnce() -> R + Send) -> R {
    let seed = SEED.get();
    let in_thread = || {
        SEED.set(seed);
        part()
    };
    let ended = std::thread::scope(|scope| scope.spawn(in_thread).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn from_clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as u64
}

/// Decimal, or hexadecimal with 0x in front.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    Some(parsed.unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

thread_local! {
    /// Of the program that this thread runs.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Has a panic of a program say its seed, on the real standard error and at once: what the harness keeps is lost where the
/// stack can't be unwound.
fn print_seeds() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            if let Some(seed) = SEED.get() {
                let line = format!("SYSURING_MODEL_SEED={seed:#x} runs this program again\n");
                let _ = std::io::stderr().write_all(line.as_bytes());
            }
        }));
    });
}
