/*
 * Shows that the library made of liburing-2.2.c is what it is for: good for a program of its time, and
 * for one made with a later header a library that loads and whose rings are full for good.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <liburing.h>
#include <stdio.h>

typedef struct io_uring_sqe *get_sqe(struct io_uring *ring);

int main(void)
{
	/* The library's: the header has an inline function of that name, which reads the fields of 2.3. */
	get_sqe *exported_get_sqe = (get_sqe *)dlsym(RTLD_DEFAULT, "io_uring_get_sqe");
	struct io_uring ring;
	int result = io_uring_queue_init(8, &ring, 0);

	if (result < 0) {
		fprintf(stderr, "skipped: io_uring_setup is refused here: error %d\n", -result);
		return 0;
	}
	if (io_uring_get_sqe(&ring)) {
		fprintf(stderr, "error: a header newer than the library gets an entry\n");
		return 1;
	}
	for (unsigned number = 1; number <= 100; number++) {
		struct io_uring_sqe *sqe = exported_get_sqe(&ring);
		struct io_uring_cqe *cqe;

		if (!sqe) {
			fprintf(stderr, "error: no entry from the library\n");
			return 1;
		}
		io_uring_prep_nop(sqe);
		io_uring_sqe_set_data64(sqe, number);
		result = io_uring_submit(&ring);
		if (result != 1 || __io_uring_get_cqe(&ring, &cqe, 0, 1, NULL) || cqe->user_data != number) {
			fprintf(stderr, "error: entry %u does not come back\n", number);
			return 1;
		}
		io_uring_cqe_seen(&ring, cqe);
	}
	io_uring_queue_exit(&ring);
	return 0;
}
