/* The C side: liburing tuned as well as it can be for one thread, and pread. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <liburing.h>

#define BLOCK 4096

/* Blocks in the order in which they are read or written; see `Blocks` in blocks.rs. */
struct blocks {
	const uint64_t *list;
	uint64_t mask;
	uint64_t start;
	uint64_t count;
};

struct baseline {
	struct io_uring ring;
	char *memory;
	unsigned depth;
	int is_write;
	/* All that is in flight is waited for before more is. */
	int in_batches;
};

static inline uint64_t block_at(const struct blocks *blocks, uint64_t at)
{
	return blocks->list[(blocks->start + at) & blocks->mask];
}

void baseline_close(struct baseline *baseline)
{
	io_uring_queue_exit(&baseline->ring);
	free(baseline->memory);
	free(baseline);
}

/* Buffers, the file and the ring's own descriptor. The file and the memory are at index 0. */
static int register_all(struct baseline *baseline, int file)
{
	struct iovec memory = {
		.iov_base = baseline->memory,
		.iov_len = (size_t)baseline->depth * BLOCK,
	};
	int returned = io_uring_register_buffers(&baseline->ring, &memory, 1);

	if (returned < 0)
		return returned;
	returned = io_uring_register_files(&baseline->ring, &file, 1);
	if (returned < 0)
		return returned;
	returned = io_uring_register_ring_fd(&baseline->ring);
	return returned < 0 ? returned : 0;
}

/* A ring for `depth` transfers at once; null with `error` set where there is none. */
struct baseline *baseline_open(int file, unsigned depth, int is_write, int in_batches, int *error)
{
	struct baseline *baseline = calloc(1, sizeof(*baseline));
	void *memory;

	*error = -ENOMEM;
	if (!baseline)
		return NULL;
	baseline->depth = depth;
	baseline->is_write = is_write;
	baseline->in_batches = in_batches;
	if (posix_memalign(&memory, BLOCK, (size_t)depth * BLOCK)) {
		free(baseline);
		return NULL;
	}
	baseline->memory = memory;
	*error = io_uring_queue_init(depth, &baseline->ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	if (*error < 0) {
		free(memory);
		free(baseline);
		return NULL;
	}
	*error = register_all(baseline, file);
	if (*error < 0) {
		baseline_close(baseline);
		return NULL;
	}
	return baseline;
}

/* Puts a transfer into the queue. `slot` is its buffer, and is what comes back. */
static inline int start(struct baseline *baseline, uint64_t block, unsigned slot)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&baseline->ring);
	char *buffer = baseline->memory + (size_t)slot * BLOCK;

	if (!sqe)
		return -EBUSY;
	if (baseline->is_write) {
		*(uint64_t *)buffer = block;
		io_uring_prep_write_fixed(sqe, 0, buffer, BLOCK, block * BLOCK, 0);
	} else {
		io_uring_prep_read_fixed(sqe, 0, buffer, BLOCK, block * BLOCK, 0);
	}
	io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data64(sqe, slot);
	return 0;
}

/* Transfers all blocks, `depth` at once: what has ended is followed by as many others, which are submitted together. */
int baseline_run(struct baseline *baseline, const struct blocks *blocks, uint64_t *sum)
{
	uint64_t next = 0, left = blocks->count;
	int returned;

	for (; next < blocks->count && next < baseline->depth; next++) {
		returned = start(baseline, block_at(blocks, next), next);
		if (returned < 0)
			return returned;
	}
	while (left > 0) {
		struct io_uring_cqe *cqe;
		unsigned head, seen = 0, wait = 1;

		if (baseline->in_batches)
			wait = left < baseline->depth ? left : baseline->depth;
		returned = io_uring_submit_and_wait(&baseline->ring, wait);
		if (returned < 0 && returned != -EINTR)
			return returned;
		io_uring_for_each_cqe(&baseline->ring, head, cqe) {
			unsigned slot = io_uring_cqe_get_data64(cqe);

			if (cqe->res != BLOCK)
				return cqe->res < 0 ? cqe->res : -EIO;
			*sum += *(uint64_t *)(baseline->memory + (size_t)slot * BLOCK);
			if (next < blocks->count) {
				returned = start(baseline, block_at(blocks, next++), slot);
				if (returned < 0)
					return returned;
			}
			seen++;
		}
		io_uring_cq_advance(&baseline->ring, seen);
		left -= seen;
	}
	return 0;
}

/* Reads all blocks, one after the other, without a ring. */
int baseline_pread(int file, void *buffer, const struct blocks *blocks, uint64_t *sum)
{
	for (uint64_t at = 0; at < blocks->count; at++) {
		ssize_t length = pread(file, buffer, BLOCK, block_at(blocks, at) * BLOCK);

		if (length != BLOCK)
			return length < 0 ? -errno : -EIO;
		*sum += *(uint64_t *)buffer;
	}
	return 0;
}
