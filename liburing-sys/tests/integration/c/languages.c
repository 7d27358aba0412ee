/*
 * The C half of a ring that two languages use: everything through the header's own
 * functions, and through the copy of liburing that this is linked to.
 */

#define _GNU_SOURCE
#include <liburing.h>

size_t c_ring_size(void)
{
	return sizeof(struct io_uring);
}

/* Where a function of the library is, as this code calls it. */
const void *c_submit_address(void)
{
	return (const void *)io_uring_submit;
}

int c_set_up(struct io_uring *ring, unsigned entries, unsigned flags)
{
	return io_uring_queue_init(entries, ring, flags);
}

void c_take_down(struct io_uring *ring)
{
	io_uring_queue_exit(ring);
}

/* -EAGAIN for a full queue. */
int c_get(struct io_uring *ring, __u64 user_data)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	if (!sqe)
		return -EAGAIN;
	io_uring_prep_nop(sqe);
	io_uring_sqe_set_data64(sqe, user_data);
	return 0;
}

int c_submit(struct io_uring *ring)
{
	return io_uring_submit(ring);
}

int c_submit_and_wait(struct io_uring *ring, unsigned count)
{
	return io_uring_submit_and_wait(ring, count);
}

static int take(struct io_uring *ring, struct io_uring_cqe *cqe, __u64 *user_data)
{
	int result = cqe->res;

	*user_data = io_uring_cqe_get_data64(cqe);
	io_uring_cqe_seen(ring, cqe);
	return result;
}

int c_peek(struct io_uring *ring, __u64 *user_data)
{
	struct io_uring_cqe *cqe;
	int result = io_uring_peek_cqe(ring, &cqe);

	return result ? result : take(ring, cqe, user_data);
}

int c_wait(struct io_uring *ring, __u64 *user_data)
{
	struct io_uring_cqe *cqe;
	int result = io_uring_wait_cqe(ring, &cqe);

	return result ? result : take(ring, cqe, user_data);
}

/* Takes all that is there, up to `room`; returns how many. */
unsigned c_walk(struct io_uring *ring, __u64 *user_data, unsigned room)
{
	struct io_uring_cqe *cqe;
	unsigned head, count = 0;

	io_uring_for_each_cqe(ring, head, cqe) {
		if (count == room)
			break;
		user_data[count++] = io_uring_cqe_get_data64(cqe);
	}
	io_uring_cq_advance(ring, count);
	return count;
}

/* What the header tells of both queues, and what it read that from. */
void c_state(struct io_uring *ring, unsigned state[10])
{
	state[0] = io_uring_sq_ready(ring);
	state[1] = io_uring_sq_space_left(ring);
	state[2] = io_uring_cq_ready(ring);
	state[3] = io_uring_cq_has_overflow(ring);
	state[4] = *ring->sq.khead;
	state[5] = *ring->sq.ktail;
	state[6] = ring->sq.sqe_head;
	state[7] = ring->sq.sqe_tail;
	state[8] = *ring->cq.khead;
	state[9] = *ring->cq.ktail;
}
