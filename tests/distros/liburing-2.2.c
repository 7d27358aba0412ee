/*
 * Makes of the static library of 2.3 a shared library that behaves as that of 2.2: it leaves the four
 * fields of a ring at zero that 2.3 added. `matrix` puts `of_2_3_` in front of the names of the
 * functions below in the static library, and exports none that is newer than 2.2.
 */

#include <liburing.h>

static void hide(struct io_uring *ring)
{
	ring->sq.ring_mask = ring->sq.ring_entries = 0;
	ring->cq.ring_mask = ring->cq.ring_entries = 0;
}

static void show(struct io_uring *ring)
{
	ring->sq.ring_mask = *ring->sq.kring_mask;
	ring->sq.ring_entries = *ring->sq.kring_entries;
	ring->cq.ring_mask = *ring->cq.kring_mask;
	ring->cq.ring_entries = *ring->cq.kring_entries;
}

/* A function that fills a ring. */
#define FILLS(name, parameters, ...)                  \
	int of_2_3_##name parameters;                 \
	int name parameters                           \
	{                                             \
		int result;                           \
		result = of_2_3_##name(__VA_ARGS__);  \
		hide(ring);                           \
		return result;                        \
	}

/* A function that reads the fields. The header defines one of them inline: hence the label. */
#define READS(type, name, parameters, ...)                     \
	type of_2_3_##name parameters;                         \
	type exported_##name parameters __asm__(#name);        \
	type exported_##name parameters                        \
	{                                                      \
		type result;                                   \
		show(ring);                                    \
		result = of_2_3_##name(__VA_ARGS__);           \
		hide(ring);                                    \
		return result;                                 \
	}

FILLS(io_uring_queue_init, (unsigned entries, struct io_uring *ring, unsigned flags), entries, ring, flags)
FILLS(io_uring_queue_init_params, (unsigned entries, struct io_uring *ring, struct io_uring_params *p),
      entries, ring, p)
FILLS(io_uring_queue_mmap, (int fd, struct io_uring_params *p, struct io_uring *ring), fd, p, ring)

READS(struct io_uring_sqe *, io_uring_get_sqe, (struct io_uring *ring), ring)
READS(int, __io_uring_get_cqe,
      (struct io_uring *ring, struct io_uring_cqe **cqe, unsigned submit, unsigned wait_nr, sigset_t *mask),
      ring, cqe, submit, wait_nr, mask)
READS(unsigned, io_uring_peek_batch_cqe, (struct io_uring *ring, struct io_uring_cqe **cqes, unsigned count),
      ring, cqes, count)
READS(int, io_uring_wait_cqes,
      (struct io_uring *ring, struct io_uring_cqe **cqe, unsigned wait_nr, struct __kernel_timespec *ts,
       sigset_t *mask), ring, cqe, wait_nr, ts, mask)
READS(int, io_uring_wait_cqe_timeout,
      (struct io_uring *ring, struct io_uring_cqe **cqe, struct __kernel_timespec *ts), ring, cqe, ts)
READS(int, io_uring_submit_and_wait_timeout,
      (struct io_uring *ring, struct io_uring_cqe **cqe, unsigned wait_nr, struct __kernel_timespec *ts,
       sigset_t *mask), ring, cqe, wait_nr, ts, mask)
