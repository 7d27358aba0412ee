//! Transfers as futures, on several executors.

use std::future::{Future, poll_fn};
use std::os::fd::AsRawFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use sysuring::ErrorKind;
use sysuring::block::{self, AlignedBuffer, Backend, BlockDevice, Device, Options, TransferFuture};

use crate::common::random::Random;
use crate::common::{self, backends, pattern};

const BLOCK: usize = 4096;
const BLOCKS: u64 = 256;

/// The smallest executor there is: a thread that sleeps until it is woken.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Sleeper(Thread);
    impl Wake for Sleeper {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Sleeper(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// The output of all futures, which one task polls.
async fn all<F: Future + Unpin>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<(Option<F>, Option<F::Output>)> =
        futures.into_iter().map(|future| (Some(future), None)).collect();
    poll_fn(|context| {
        for (future, output) in &mut futures {
            if let Some(Poll::Ready(ready)) = future.as_mut().map(|future| Pin::new(future).poll(context)) {
                (*future, *output) = (None, Some(ready));
            }
        }
        if futures.iter().all(|(future, _)| future.is_none()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    futures.into_iter().map(|(_, output)| output.expect("ended")).collect()
}

fn device(directory: &tempfile::TempDir, backend: Backend, direct: bool) -> Device {
    let path = directory.path().join(format!("{backend}-{direct}"));
    let options = Options::new().backend(backend).direct(direct).queue_depth(32).create(BLOCKS * BLOCK as u64);
    block::open(path, &options).unwrap()
}

/// As [`device`], with something on it: what was never written is not read from the disk, and so is there at once.
fn written(directory: &tempfile::TempDir, backend: Backend, direct: bool) -> Device {
    let path = directory.path().join(format!("{backend}-{direct}"));
    std::fs::write(path, pattern(3, BLOCKS as usize * BLOCK)).unwrap();
    device(directory, backend, direct)
}

fn every_kind() -> impl Iterator<Item = (Backend, bool)> {
    backends().into_iter().flat_map(|backend| [(backend, true), (backend, false)])
}

/// Writes what differs from task to task and reads it again, in blocks of its own.
async fn work(device: Arc<Device>, task: u64, tasks: u64, rounds: u64) {
    let mut random = Random::new(task);
    let mut buffer = device.aligned_buffer(BLOCK).unwrap();
    for round in 0..rounds {
        let block = task + tasks * random.below((BLOCKS / tasks) as usize) as u64;
        let data = pattern(task << 32 | round, BLOCK);
        buffer.copy_from_slice(&data);
        buffer = match round % 3 {
            0 => device.write_fua_async(block, buffer).await.unwrap(),
            _ => device.write_async(block, buffer).await.unwrap(),
        };
        if round % 16 == 0 {
            device.flush_async().await.unwrap();
        }
        buffer.fill(0);
        buffer = device.read_async(block, buffer).await.unwrap();
        assert_eq!(*buffer, data, "task {task}, round {round}");
    }
}

fn check(device: &Device, tasks: u64, rounds: u64) {
    let stats = device.stats();
    assert_eq!((stats.in_flight, stats.failures, stats.bounces), (0, 0, 0));
    assert_eq!((stats.reads, stats.writes), (tasks * rounds, tasks * rounds));
}

#[test]
fn every_executor_carries_them_out() {
    let directory = common::directory();
    let (tasks, rounds) = (16, 40);
    for (backend, direct) in every_kind() {
        let open = || Arc::new(device(&directory, backend, direct));

        let own = open();
        block_on(all((0..tasks).map(|task| Box::pin(work(Arc::clone(&own), task, tasks, rounds)))));
        check(&own, tasks, rounds);
        drop(own);

        let of_smol = open();
        let spawned: Vec<_> =
            (0..tasks).map(|task| smol::spawn(work(Arc::clone(&of_smol), task, tasks, rounds))).collect();
        smol::block_on(all(spawned));
        check(&of_smol, tasks, rounds);
        drop(of_smol);

        for runtime in [
            tokio::runtime::Builder::new_current_thread().build().unwrap(),
            tokio::runtime::Builder::new_multi_thread().worker_threads(3).build().unwrap(),
        ] {
            let of_tokio = open();
            let spawned: Vec<_> =
                (0..tasks).map(|task| runtime.spawn(work(Arc::clone(&of_tokio), task, tasks, rounds))).collect();
            runtime.block_on(async {
                for task in spawned {
                    task.await.unwrap();
                }
            });
            check(&of_tokio, tasks, rounds);
        }
    }
}

#[test]
fn more_than_there_is_room_for_wait_in_line() {
    let directory = common::directory();
    for (backend, direct) in every_kind() {
        let device = written(&directory, backend, direct);
        let data = pattern(3, BLOCKS as usize * BLOCK);
        let read =
            |index: u64| device.read_async(index % BLOCKS, AlignedBuffer::new(BLOCK, device.alignment()).unwrap());
        for (index, outcome) in block_on(all((0..1500).map(read))).into_iter().enumerate() {
            let at = index % BLOCKS as usize * BLOCK;
            assert_eq!(*outcome.unwrap(), data[at..][..BLOCK], "{backend} {direct} {index}");
        }
        // Those that leave the line let others in.
        let (kept, gone) = (AtomicUsize::new(0), AtomicUsize::new(0));
        block_on(async {
            let mut futures: Vec<Option<TransferFuture>> = (0..1500).map(|index| Some(read(index))).collect();
            let mut random = Random::new(1);
            poll_fn(|context| {
                for future in &mut futures {
                    match future.as_mut().map(|future| Pin::new(future).poll(context)) {
                        Some(Poll::Ready(outcome)) => {
                            outcome.unwrap();
                            kept.fetch_add(1, Ordering::Relaxed);
                            *future = None;
                        }
                        Some(Poll::Pending) if random.below(8) == 0 => {
                            gone.fetch_add(1, Ordering::Relaxed);
                            *future = None;
                        }
                        _ => {}
                    }
                }
                if futures.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        });
        assert_eq!(kept.into_inner() + gone.into_inner(), 1500);
        block_on(work(Arc::new(device), 0, 1, 3));
    }
}

/// What was given up ends by itself, some time.
#[track_caller]
fn nothing_stays_in_flight(device: &Device) {
    let end = Instant::now() + Duration::from_secs(30);
    while device.stats().in_flight != 0 {
        assert!(Instant::now() < end, "{}: {} in flight", device.report(), device.stats().in_flight);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_future_may_be_dropped_at_any_time() {
    let directory = common::directory();
    for (backend, direct) in every_kind() {
        let device = Arc::new(written(&directory, backend, direct));
        let slots = 256;
        let mut random = Random::new(5);
        for round in 0..400_u64 {
            let mut futures: Vec<TransferFuture> = (0..8)
                .map(|index| {
                    let buffer = device.aligned_buffer(BLOCK).unwrap();
                    let block = random.below(BLOCKS as usize) as u64;
                    if index % 2 == 0 { device.read_async(block, buffer) } else { device.write_async(block, buffer) }
                })
                .collect();
            let polled = random.below(9);
            block_on(poll_fn(|context| {
                for future in futures.iter_mut().take(polled) {
                    if let Poll::Ready(outcome) = Pin::new(&mut *future).poll(context) {
                        outcome.unwrap();
                        // Polled no more.
                        *future = device.read_async(0, device.aligned_buffer(BLOCK).unwrap());
                    }
                }
                Poll::Ready(())
            }));
            if round % 7 == 0 {
                let dropped = std::thread::spawn(move || drop(futures));
                dropped.join().unwrap();
            }
        }
        // All places, and all of the device's own memory, come back.
        let full: Vec<_> = (0..slots).map(|_| device.aligned_buffer(BLOCK).unwrap()).collect();
        let outcomes = block_on(all(full.into_iter().map(|buffer| device.read_async(0, buffer))));
        outcomes.into_iter().for_each(|outcome| drop(outcome.unwrap()));
        nothing_stays_in_flight(&device);
    }
}

#[test]
fn a_future_may_go_from_thread_to_thread() {
    let directory = common::directory();
    for (backend, direct) in every_kind() {
        let device = Arc::new(device(&directory, backend, direct));
        let data = pattern(9, BLOCK);
        device.write_block(5, &data).unwrap();
        for _ in 0..100 {
            let future = device.read_async(5, device.aligned_buffer(BLOCK).unwrap());
            // Started by a thread that ends at once.
            let started = std::thread::spawn(move || {
                let mut future = future;
                match Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(outcome) => Err(outcome),
                    Poll::Pending => Ok(future),
                }
            });
            let buffer = match started.join().unwrap() {
                Ok(future) => block_on(future).unwrap(),
                Err(outcome) => outcome.unwrap(),
            };
            assert_eq!(*buffer, data);
        }
    }
}

#[test]
fn futures_tell_mistakes_and_give_the_buffer_back() {
    let directory = common::directory();
    for backend in backends() {
        let device = device(&directory, backend, true);
        let buffer = device.aligned_buffer(BLOCK).unwrap();
        let refused = block_on(device.read_async(BLOCKS, buffer)).unwrap_err();
        assert_eq!(refused.error().kind(), ErrorKind::OutOfRange);
        drop(device);
        let path = directory.path().join(format!("{backend}-true"));
        let device = block::open(&path, &Options::new().backend(backend).read_only(true)).unwrap();
        let refused = block_on(device.write_async(0, refused.into_buffer().expect("given back"))).unwrap_err();
        assert_eq!(refused.error().kind(), ErrorKind::ReadOnly);
        block_on(device.flush_async()).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(10 * BLOCK as u64).unwrap();
        let failed = block_on(device.read_async(10, refused.into_buffer().unwrap())).unwrap_err();
        assert_eq!(failed.error().kind(), ErrorKind::EndOfDevice);
        let buffer = block_on(device.read_async(9, failed.into_buffer().unwrap())).unwrap();
        assert_eq!((buffer.len(), device.stats().failures, device.stats().in_flight), (BLOCK, 1, 0));
        file.set_len(BLOCKS * BLOCK as u64).unwrap();
        // It keeps the device open.
        let future = device.read_async(0, buffer);
        drop(device);
        block_on(future).unwrap();
        block::open(&path, &Options::new()).unwrap();
    }
}

#[test]
fn what_does_not_end_in_time_is_given_up() {
    let directory = common::directory();
    for (backend, direct) in every_kind() {
        let device = written(&directory, backend, direct);
        let buffer = || device.aligned_buffer(BLOCK).unwrap();
        let soon = || Instant::now() + Duration::from_secs(3600);
        block_on(device.read_async(0, buffer()).deadline(soon())).unwrap();
        block_on(device.flush_async().deadline(soon())).unwrap();
        // Over before they began: whether they end all the same depends on whether they have to be waited for.
        let mut late = 0;
        for outcome in block_on(all((0..600).map(|_| device.read_async(0, buffer()).deadline(Instant::now())))) {
            if let Err(failed) = outcome {
                assert_eq!(failed.error().kind(), ErrorKind::TimedOut);
                late += 1;
            }
        }
        assert!(late > 0 || !device.report().direct, "{backend} {direct}: nothing had to be waited for");
        // The timer's own thread wakes it, where nobody else does: in line behind what nobody polls any more.
        let mut first: Vec<_> = (0..600).map(|_| device.write_fua_async(0, buffer())).collect();
        let begun = Instant::now();
        let timed = device.read_async(1, buffer()).deadline(begun + Duration::from_millis(20));
        let outcome = block_on(async {
            poll_fn(|context| {
                first.iter_mut().for_each(|future| drop(Pin::new(future).poll(context)));
                Poll::Ready(())
            })
            .await;
            timed.await
        });
        match outcome {
            Ok(_) => {}
            Err(failed) => {
                assert_eq!(failed.error().kind(), ErrorKind::TimedOut);
                assert!(begun.elapsed() >= Duration::from_millis(20));
            }
        }
        drop(first);
        block_on(device.read_async(0, buffer())).unwrap();
        nothing_stays_in_flight(&device);
    }
}

#[test]
fn latencies_are_measured_where_that_is_asked_for() {
    let directory = common::directory();
    for backend in backends() {
        let path = directory.path().join("measured");
        let options = Options::new().backend(backend).create(BLOCKS * BLOCK as u64);
        assert!(block::open(&path, &options).unwrap().latency().is_none());
        let device = block::open(&path, &options.measure_latency(true)).unwrap();
        let begun = Instant::now();
        let mut block = device.aligned_buffer(BLOCK).unwrap();
        for _ in 0..10 {
            device.write_block(0, &block).unwrap();
        }
        device.flush().unwrap();
        device.read_block(0, &mut block).unwrap();
        let block = block_on(device.read_async(1, block)).unwrap();
        block_on(device.flush_async()).unwrap();
        let mut queue = device.queue(4, BLOCK).unwrap();
        queue.read(3, block, 0).unwrap();
        queue.wait().unwrap().unwrap().result.unwrap();
        let latency = device.latency().unwrap();
        let counts = [&latency.reads, &latency.writes, &latency.flushes].map(|histogram| histogram.count());
        assert_eq!(counts, [3, 10, 2], "{backend}");
        let slowest = latency.writes.percentile(100.0);
        assert!(slowest > Duration::ZERO && slowest <= begun.elapsed() * 5 / 4, "{slowest:?}");
        assert!(latency.writes.to_string().starts_with("10 in all, half within "), "{}", latency.writes);
    }
}

/// Wakes, and says how often.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn who_gets_an_answer_at_once_is_not_woken() {
    let directory = common::directory();
    for (backend, direct) in every_kind() {
        let device = written(&directory, backend, direct);
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(Arc::clone(&counter));
        let mut pending = 0;
        for block in 0..200 {
            let mut future = device.read_async(block, device.aligned_buffer(BLOCK).unwrap());
            if Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending() {
                pending += 1;
                let end = Instant::now() + Duration::from_secs(20);
                while counter.0.load(Ordering::Relaxed) < pending {
                    assert!(Instant::now() < end, "{backend} {direct}: it is not woken");
                    std::thread::yield_now();
                }
                assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_ready());
            }
        }
        assert_eq!(counter.0.load(Ordering::Relaxed), pending, "{backend} {direct}");
    }
}

/// Puts what is written to the disk, and forgets what of it is in memory.
fn leave_the_cache(path: &std::path::Path) {
    let file = std::fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    // SAFETY: passes no memory.
    assert_eq!(unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
}

/// The page cache need not be what the file system in use has.
fn can_leave_the_cache(path: &std::path::Path) -> bool {
    let file = std::fs::File::open(path).unwrap();
    let mut byte = [0_u8; 1];
    let iovec = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: one element, which is `byte`.
    let read = || unsafe { libc::preadv2(file.as_raw_fd(), &raw const iovec, 1, 0, libc::RWF_NOWAIT) };
    leave_the_cache(path);
    let absent = read();
    std::fs::read(path).unwrap();
    absent == -1 && read() == 1
}

#[test]
fn what_is_in_the_page_cache_is_there_at_once_and_what_is_not_is_read() {
    let directory = common::directory();
    for backend in backends() {
        let device = written(&directory, backend, false);
        let path = directory.path().join(format!("{backend}-false"));
        if !can_leave_the_cache(&path) {
            return common::skip("the file system does not say what is in the page cache");
        }
        let data = pattern(3, BLOCKS as usize * BLOCK);
        let poll = |future: &mut TransferFuture| Pin::new(future).poll(&mut Context::from_waker(Waker::noop()));
        for length in [BLOCK, 16 * BLOCK] {
            std::fs::read(&path).unwrap();
            let mut future = device.read_async(7, device.aligned_buffer(length).unwrap());
            let Poll::Ready(Ok(buffer)) = poll(&mut future) else { panic!("{backend}: it is not there at once") };
            assert_eq!(*buffer, data[7 * BLOCK..][..length], "{backend}");
        }
        leave_the_cache(&path);
        let buffer = block_on(device.read_async(9, device.aligned_buffer(BLOCK).unwrap())).unwrap();
        assert_eq!(*buffer, data[9 * BLOCK..][..BLOCK], "{backend}");
        let stats = device.stats();
        assert_eq!((stats.reads, stats.bytes_read, stats.in_flight), (3, 18 * BLOCK as u64, 0), "{backend}");
    }
}

#[test]
fn a_task_whose_answers_are_all_there_gives_way_to_others() {
    let directory = common::directory();
    for backend in backends() {
        let device = Arc::new(written(&directory, backend, false));
        std::fs::read(directory.path().join(format!("{backend}-false"))).unwrap();
        let others = Arc::new(AtomicUsize::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let greedy = {
            let (device, others) = (Arc::clone(&device), Arc::clone(&others));
            async move {
                let mut buffer = device.aligned_buffer(BLOCK).unwrap();
                for read in 0..100_000 {
                    if others.load(Ordering::Relaxed) != 0 {
                        return read;
                    }
                    buffer = device.read_async(1, buffer).await.unwrap();
                }
                panic!("{backend}: nobody else had a turn")
            }
        };
        runtime.block_on(async {
            let greedy = tokio::spawn(greedy);
            let other = tokio::spawn(async move { others.fetch_add(1, Ordering::Relaxed) });
            assert!(greedy.await.unwrap() <= 1000, "{backend}");
            other.await.unwrap();
        });
    }
}

#[test]
fn what_is_there_at_once_is_in_time_whatever_the_deadline() {
    let directory = common::directory();
    for backend in backends() {
        let device = written(&directory, backend, false);
        let path = directory.path().join(format!("{backend}-false"));
        if !can_leave_the_cache(&path) {
            return common::skip("the file system does not say what is in the page cache");
        }
        let mut buffer = device.aligned_buffer(BLOCK).unwrap();
        for read in 0..1000 {
            let mut future = device.read_async(2, buffer).deadline(Instant::now());
            match Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(back)) => buffer = back,
                other => panic!("{backend}: read {read}: {other:?}"),
            }
        }
    }
}

/// Has one task do something again and again that is there at once, and another that wants a turn.
fn gives_way<F: Future>(what: &str, mut again: impl FnMut() -> F) {
    let others = AtomicUsize::new(0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let tasks = tokio::task::LocalSet::new();
    let turns = tasks.block_on(&runtime, async {
        let other = async { others.fetch_add(1, Ordering::Relaxed) };
        let greedy = async {
            for turn in 0..100_000 {
                if others.load(Ordering::Relaxed) != 0 {
                    return turn;
                }
                again().await;
            }
            panic!("{what}: nobody else had a turn")
        };
        // In this order, with a turn for each.
        let (turns, _) = tokio::join!(biased; greedy, async { tokio::task::yield_now().await; other.await });
        turns
    });
    assert!(turns <= 1000, "{what}: {turns} turns");
}

#[test]
fn whatever_is_answered_at_once_gives_way_to_others() {
    let directory = common::directory();
    for backend in backends() {
        drop(written(&directory, backend, false));
        let path = directory.path().join(format!("{backend}-false"));
        let options = Options::new().backend(backend).direct(false).read_only(true);
        let device = block::open(path, &options).unwrap();
        gives_way("a flush of what is read only", || async { device.flush_async().await.unwrap() });
        let buffer = || AlignedBuffer::new(BLOCK, device.alignment()).unwrap();
        gives_way("a read past the end", || async { drop(device.read_async(BLOCKS, buffer()).await.unwrap_err()) });
    }
}

#[test]
fn what_has_ended_and_is_not_polled_takes_no_room() {
    let directory = common::directory();
    for (backend, direct) in every_kind() {
        let device = Arc::new(written(&directory, backend, direct));
        let read = |index: u64| device.read_async(index % BLOCKS, device.aligned_buffer(BLOCK).unwrap());
        let mut first: Vec<TransferFuture> = (0..600).map(read).collect();
        let poll = |future: &mut TransferFuture| Pin::new(future).poll(&mut Context::from_waker(Waker::noop()));
        let mut pending: Vec<TransferFuture> = Vec::new();
        for mut future in first.drain(..) {
            if poll(&mut future).is_pending() && !format!("{future:?}").contains("waits for") {
                pending.push(future);
            }
        }
        nothing_stays_in_flight(&device);
        // Those of other threads, too, whichever ring they use.
        let threads: Vec<_> = (0..4)
            .map(|block| {
                let device = Arc::clone(&device);
                std::thread::spawn(move || {
                    let end = Instant::now() + Duration::from_secs(20);
                    for _ in 0..300 {
                        let buffer = device.aligned_buffer(BLOCK).unwrap();
                        let read = block_on(device.read_async(block, buffer).deadline(end));
                        read.map_err(|failed| failed.error().to_string()).expect("there is room");
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        // And what ended is still to be had.
        block_on(all(pending)).into_iter().for_each(|outcome| drop(outcome.unwrap()));
    }
}

/// Has more tasks than there is room for read one block after the other, and looks whether each gets its share.
async fn share(device: Arc<Device>) -> Vec<usize> {
    const READS: usize = 12_000;
    let left = Arc::new(AtomicUsize::new(READS));
    let tasks: Vec<_> = (0..400_u64)
        .map(|task| {
            let (device, left) = (Arc::clone(&device), Arc::clone(&left));
            tokio::spawn(async move {
                let mut buffer = AlignedBuffer::new(BLOCK, device.alignment()).unwrap();
                let mut reads = 0;
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    buffer = device.read_async(task % BLOCKS, buffer).await.unwrap();
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    let mut reads = Vec::new();
    for task in tasks {
        reads.push(task.await.unwrap());
    }
    assert_eq!(reads.iter().sum::<usize>(), READS);
    reads
}

/// That none was left out: on the whole each has 30.
#[track_caller]
fn check_shares(what: &str, reads: &[usize]) {
    let (least, most) = (reads.iter().min().unwrap(), reads.iter().max().unwrap());
    assert!(*least >= 3, "{what}: from {least} to {most} reads a task");
}

#[test]
fn more_tasks_than_there_is_room_for_have_their_turns() {
    let directory = common::directory();
    for backend in backends() {
        let device = Arc::new(written(&directory, backend, true));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let reads = runtime.block_on(share(device));
        check_shares(&backend.to_string(), &reads);
    }
}

#[test]
fn a_logger_that_panics_ends_nobodys_transfers() {
    struct Hostile;
    impl log::Log for Hostile {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            if record.level() <= log::Level::Warn {
                panic!("on purpose, in a logger");
            }
        }

        fn flush(&self) {}
    }

    // A process has one logger.
    if !common::is_alone("device::futures::a_logger_that_panics_ends_nobodys_transfers") {
        return;
    }
    log::set_logger(&Hostile).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let directory = common::directory();
    for (backend, direct) in every_kind() {
        let device = written(&directory, backend, direct);
        let path = directory.path().join(format!("{backend}-{direct}"));
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_len(BLOCKS / 2 * BLOCK as u64).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        let buffer = || device.aligned_buffer(BLOCK).unwrap();
        for round in 0..20 {
            let late = block_on(device.read_async(BLOCKS - 1, buffer()).deadline(end)).unwrap_err();
            assert_eq!(late.error().kind(), ErrorKind::EndOfDevice, "{backend} {direct} {round}");
            assert!(device.read_block(BLOCKS - 1, &mut buffer()).is_err());
        }
        drop(block_on(device.read_async(0, buffer()).deadline(end)).unwrap());
        device.read_block(0, &mut buffer()).unwrap();
        nothing_stays_in_flight(&device);
    }
}

/// A waker that panics when it is cloned a second time, or when it wakes, with something that panics when it is dropped.
mod hostile {
    use std::panic::panic_any;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{RawWaker, RawWakerVTable, Waker};

    pub static CLONES: AtomicBool = AtomicBool::new(true);

    struct Payload;

    impl Drop for Payload {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                // Of no size: what this comes with is left, and would be a leak.
                panic_any(());
            }
        }
    }

    static VTABLE: RawWakerVTable = RawWakerVTable::new(
        |data| match CLONES.load(Ordering::Relaxed) {
            true => RawWaker::new(data, &VTABLE),
            false => panic!("on purpose, in a waker's clone"),
        },
        |_| panic_any(Payload),
        |_| panic_any(Payload),
        |_| (),
    );

    pub fn waker() -> Waker {
        // SAFETY: nothing is behind it.
        unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &VTABLE)) }
    }
}

#[test]
fn wakers_that_panic_harm_nobody_else() {
    let directory = common::directory();
    for (backend, direct) in every_kind() {
        let device = written(&directory, backend, direct);
        let waker = hostile::waker();
        let read = || device.read_async(0, AlignedBuffer::new(BLOCK, device.alignment()).unwrap());
        // A few for each thread that might end of it, and more than there are places.
        for _ in 0..300 {
            let mut future = read().deadline(Instant::now() + Duration::from_millis(1));
            if Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending() {
                hostile::CLONES.store(false, Ordering::Relaxed);
                // Only the clone's panic gets here, whose payload is harmless.
                drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    let waker = hostile::waker();
                    let _ = Pin::new(&mut future).poll(&mut Context::from_waker(&waker));
                })));
                hostile::CLONES.store(true, Ordering::Relaxed);
            }
        }
        let end = Instant::now() + Duration::from_secs(20);
        let late = || read().deadline(end);
        block_on(all((0..50).map(|_| late()))).into_iter().for_each(|outcome| drop(outcome.unwrap()));
        nothing_stays_in_flight(&device);
    }
}

#[test]
fn futures_that_are_forgotten_in_line_stop_nobody_for_good() {
    let directory = common::directory();
    for backend in backends() {
        let device = Arc::new(written(&directory, backend, true));
        let read =
            |index: u64| device.read_async(index % BLOCKS, AlignedBuffer::new(BLOCK, device.alignment()).unwrap());
        let poll = |future: &mut TransferFuture| Pin::new(future).poll(&mut Context::from_waker(Waker::noop()));
        let mut first: Vec<TransferFuture> = (0..256).map(read).collect();
        first.retain_mut(|future| poll(future).is_pending());
        let mut forgotten: Vec<TransferFuture> = (0..1000).map(read).collect();
        forgotten.retain_mut(|future| poll(future).is_pending() && format!("{future:?}").contains("waits for room"));
        std::mem::forget(forgotten);
        let theirs = Arc::clone(&device);
        let last = std::thread::spawn(move || {
            let end = Instant::now() + Duration::from_secs(20);
            let buffer = AlignedBuffer::new(BLOCK, theirs.alignment()).unwrap();
            block_on(theirs.read_async(0, buffer).deadline(end)).is_ok()
        });
        std::thread::sleep(Duration::from_millis(20));
        block_on(all(first)).into_iter().for_each(|outcome| drop(outcome.unwrap()));
        assert!(last.join().unwrap(), "{backend}: it waits for room that there is");
    }
}

#[cfg(any(feature = "link", feature = "dlopen"))]
mod reactor {
    use sysuring::block::Reactor;
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    use super::*;

    fn ring() -> bool {
        let available = sysuring::available();
        available.inspect_err(|reason| common::skip(reason)).is_ok()
    }

    /// Runs `application` on one thread, beside a reactor.
    fn run<F: Future>(application: impl FnOnce() -> F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let reactor = Reactor::new().unwrap();
            // SAFETY: the descriptor is the reactor's, which outlives this.
            let descriptor =
                unsafe { AsyncFd::register_with_interest(reactor.completion_fd(), Interest::READABLE) }.unwrap();
            let readable = || async {
                descriptor.readable().await?.clear_ready();
                Ok(())
            };
            tokio::select! {
                gone = reactor.run(readable) => panic!("{gone:?}"),
                output = application() => output,
            }
        })
    }

    #[test]
    fn more_tasks_than_there_is_room_for_have_their_turns_beside_a_reactor() {
        if !ring() {
            return;
        }
        let directory = common::directory();
        let device = Arc::new(written(&directory, Backend::Uring, true));
        check_shares("a reactor", &run(|| share(device)));
    }

    #[test]
    fn one_thread_does_it_all() {
        if !ring() {
            return;
        }
        let directory = common::directory();
        for direct in [true, false] {
            let device = Arc::new(device(&directory, Backend::Uring, direct));
            let (tasks, rounds) = (32, 50);
            run(|| async {
                let spawned: Vec<_> =
                    (0..tasks).map(|task| tokio::spawn(work(Arc::clone(&device), task, tasks, rounds))).collect();
                for task in spawned {
                    task.await.unwrap();
                }
            });
            check(&device, tasks, rounds);
            // More than it has room for, some of which nobody waits for.
            run(|| async {
                let read = |index| device.read_async(index % BLOCKS, device.aligned_buffer(BLOCK).unwrap());
                let mut given_up: Vec<_> = (0..100).map(read).collect();
                poll_fn(|context| {
                    given_up.iter_mut().for_each(|future| drop(Pin::new(future).poll(context)));
                    Poll::Ready(())
                })
                .await;
                drop(given_up);
                for outcome in all((0..1000).map(read)).await {
                    outcome.unwrap();
                }
            });
            super::nothing_stays_in_flight(&device);
        }
    }

    #[test]
    fn other_threads_may_have_its_futures() {
        if !ring() {
            return;
        }
        let directory = common::directory();
        let device = Arc::new(written(&directory, Backend::Uring, true));
        run(|| async {
            for round in 0..200_u64 {
                let mut future = device.read_async(round % BLOCKS, device.aligned_buffer(BLOCK).unwrap());
                let first = poll_fn(|context| Poll::Ready(Pin::new(&mut future).poll(context))).await;
                assert!(first.is_pending(), "nothing is submitted before the reactor turns");
                if round % 2 == 0 {
                    std::thread::spawn(move || drop(future)).join().unwrap();
                    tokio::task::yield_now().await;
                } else {
                    let other = std::thread::spawn(move || block_on(future).unwrap().len());
                    while !other.is_finished() {
                        tokio::time::sleep(Duration::from_micros(50)).await;
                    }
                    assert_eq!(other.join().unwrap(), BLOCK);
                }
            }
        });
        nothing_stays_in_flight(&device);
    }

    #[test]
    fn a_reactor_that_goes_ends_what_it_has() {
        if !ring() {
            return;
        }
        let directory = common::directory();
        let device = Arc::new(written(&directory, Backend::Uring, true));
        for forgotten in [false, true] {
            let device = Arc::clone(&device);
            let left = std::thread::spawn(move || {
                let reactor = Reactor::new().unwrap();
                assert_eq!(Reactor::new().unwrap_err().kind(), ErrorKind::Busy);
                let context = Context::from_waker(Waker::noop());
                let mut futures: Vec<_> =
                    (0..8).map(|block| device.read_async(block, device.aligned_buffer(BLOCK).unwrap())).collect();
                for future in &mut futures {
                    assert!(Pin::new(future).poll(&mut Context::from_waker(Waker::noop())).is_pending());
                }
                reactor.turn(&context).unwrap();
                if forgotten {
                    std::mem::forget(reactor);
                } else {
                    drop(reactor);
                    drop(Reactor::new().unwrap());
                }
                futures
            });
            // The thread is gone, and with it the ring.
            for future in left.join().unwrap() {
                assert_eq!(block_on(future).unwrap().len(), BLOCK);
            }
        }
        assert_eq!(device.stats().in_flight, 0);
    }
}
