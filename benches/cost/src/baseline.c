/* The C side: liburing as one would use it in a program that keeps a request for every operation. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <liburing.h>

/* What is known about an operation; `user_data` is its address. */
struct request {
	struct request *next;
	void *buffer;
	unsigned short buffer_index;
};

struct baseline {
	struct io_uring ring;
	struct request *free;
	uint64_t total;
	/* Registered at this index. */
	int file;
	unsigned depth;
	unsigned length;
	struct request *requests;
	void *memory;
};

static inline struct request *take_request(struct baseline *baseline)
{
	struct request *request = baseline->free;

	if (request)
		baseline->free = request->next;
	return request;
}

static inline void give_request(struct baseline *baseline, struct request *request)
{
	request->next = baseline->free;
	baseline->free = request;
}

void baseline_close(struct baseline *baseline)
{
	io_uring_queue_exit(&baseline->ring);
	free(baseline->memory);
	free(baseline->requests);
	free(baseline);
}

static int register_all(struct baseline *baseline, const char *path)
{
	struct iovec memory = {
		.iov_base = baseline->memory,
		.iov_len = (size_t)baseline->depth * baseline->length,
	};
	/* The indices of both are 0, as calloc has left them. */
	int returned = io_uring_register_buffers(&baseline->ring, &memory, 1);
	int file;

	if (returned < 0)
		return returned;
	file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return -errno;
	returned = io_uring_register_files(&baseline->ring, &file, 1);
	close(file);
	return returned;
}

/* Sets up a ring and `depth` requests with `length` bytes each; null with `error` set where that fails. */
struct baseline *baseline_open(unsigned depth, unsigned length, const char *path, int *error)
{
	struct baseline *baseline = calloc(1, sizeof(*baseline));
	int returned;

	*error = -ENOMEM;
	if (!baseline)
		return NULL;
	baseline->depth = depth;
	baseline->length = length;
	baseline->requests = calloc(depth, sizeof(*baseline->requests));
	if (!baseline->requests || posix_memalign(&baseline->memory, 4096, (size_t)depth * length))
		goto fail;
	returned = io_uring_queue_init(depth, &baseline->ring, 0);
	if (returned < 0) {
		*error = returned;
		goto fail;
	}
	returned = register_all(baseline, path);
	if (returned < 0) {
		*error = returned;
		baseline_close(baseline);
		return NULL;
	}
	for (unsigned at = depth; at-- > 0;) {
		baseline->requests[at].buffer = (char *)baseline->memory + (size_t)at * length;
		give_request(baseline, &baseline->requests[at]);
	}
	return baseline;
fail:
	free(baseline->memory);
	free(baseline->requests);
	free(baseline);
	return NULL;
}

uint64_t baseline_total(const struct baseline *baseline)
{
	return baseline->total;
}

int baseline_fill_read_fixed(struct baseline *baseline)
{
	struct request *request;
	uint64_t offset = 0;

	while ((request = take_request(baseline))) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&baseline->ring);

		if (!sqe) {
			give_request(baseline, request);
			return -EBUSY;
		}
		io_uring_prep_read_fixed(sqe, baseline->file, request->buffer, baseline->length, offset,
					 request->buffer_index);
		io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
		io_uring_sqe_set_data(sqe, request);
		offset += baseline->length;
	}
	return 0;
}

int baseline_fill_read(struct baseline *baseline)
{
	struct request *request;
	uint64_t offset = 0;

	while ((request = take_request(baseline))) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&baseline->ring);

		if (!sqe) {
			give_request(baseline, request);
			return -EBUSY;
		}
		io_uring_prep_read(sqe, baseline->file, request->buffer, baseline->length, offset);
		io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
		io_uring_sqe_set_data(sqe, request);
		offset += baseline->length;
	}
	return 0;
}

int baseline_fill_nop_with_request(struct baseline *baseline)
{
	struct request *request;

	while ((request = take_request(baseline))) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&baseline->ring);

		if (!sqe) {
			give_request(baseline, request);
			return -EBUSY;
		}
		io_uring_prep_nop(sqe);
		io_uring_sqe_set_data(sqe, request);
	}
	return 0;
}

/* Without a request: `user_data` is a number. */
int baseline_fill_nop(struct baseline *baseline)
{
	for (unsigned at = 0; at < baseline->depth; at++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&baseline->ring);

		if (!sqe)
			return -EBUSY;
		io_uring_prep_nop(sqe);
		io_uring_sqe_set_data64(sqe, at);
	}
	return 0;
}

int baseline_submit(struct baseline *baseline)
{
	return io_uring_submit_and_wait(&baseline->ring, baseline->depth);
}

int baseline_reap_requests(struct baseline *baseline)
{
	struct io_uring_cqe *cqe;
	unsigned head, seen = 0;

	io_uring_for_each_cqe(&baseline->ring, head, cqe) {
		if (cqe->res < 0)
			return cqe->res;
		baseline->total += (unsigned)cqe->res;
		give_request(baseline, io_uring_cqe_get_data(cqe));
		seen++;
	}
	io_uring_cq_advance(&baseline->ring, seen);
	return 0;
}

int baseline_reap_numbers(struct baseline *baseline)
{
	struct io_uring_cqe *cqe;
	unsigned head, seen = 0;

	io_uring_for_each_cqe(&baseline->ring, head, cqe) {
		if (cqe->res < 0)
			return cqe->res;
		baseline->total += io_uring_cqe_get_data64(cqe);
		seen++;
	}
	io_uring_cq_advance(&baseline->ring, seen);
	return 0;
}
