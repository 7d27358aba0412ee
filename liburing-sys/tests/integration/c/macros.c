/* The header's macros as functions, for those in Rust to be compared with. */

#define _GNU_SOURCE
#include <liburing.h>

unsigned cqe_shift(const struct io_uring *ring)
{
	return io_uring_cqe_shift(ring);
}

unsigned cqe_index(const struct io_uring *ring, unsigned position, unsigned mask)
{
#ifdef io_uring_cqe_index
	return io_uring_cqe_index(ring, position, mask);
#else
	/* The newest headers do it where it is needed. */
	return (position & mask) << io_uring_cqe_shift(ring);
#endif
}

/* Writes down the entries that the loop meets, and returns how many, up to `room`. */
unsigned walk(struct io_uring *ring, struct io_uring_cqe **met, unsigned room)
{
	struct io_uring_cqe *cqe;
	unsigned head, count = 0;

	io_uring_for_each_cqe(ring, head, cqe) {
		if (count == room)
			break;
		met[count++] = cqe;
	}
	return count;
}

/* The header's version times 1000; 0 for one that does not know it. */
unsigned header_version(void)
{
#ifdef IO_URING_VERSION_MAJOR
	return IO_URING_VERSION_MAJOR * 1000 + IO_URING_VERSION_MINOR;
#else
	return 0;
#endif
}

/* -1 for a header that does not have it. */
int is_older(unsigned major, unsigned minor)
{
#ifdef IO_URING_CHECK_VERSION
	return IO_URING_CHECK_VERSION(major, minor);
#else
	(void)major, (void)minor;
	return -1;
#endif
}

unsigned read_once(unsigned *place)
{
	return IO_URING_READ_ONCE(*place);
}

void write_once(unsigned *place, unsigned value)
{
	IO_URING_WRITE_ONCE(*place, value);
}

unsigned load_acquire(unsigned *place)
{
	return io_uring_smp_load_acquire(place);
}

void store_release(unsigned *place, unsigned value)
{
	io_uring_smp_store_release(place, value);
}

void barrier(void)
{
	io_uring_smp_mb();
}
