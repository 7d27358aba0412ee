/*
 * The header's inline functions as ordinary ones under their own names, as liburing-ffi
 * and other wrappers have them.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <linux/swab.h>
#include <liburing/compat.h>
#include <liburing/io_uring.h>
#include <liburing/barrier.h>

/* What the inline functions call is not in this archive. */
#define __io_uring_get_cqe plain_get_cqe
#define __io_uring_sqring_wait plain_sqring_wait
#define io_uring_buf_ring_head plain_buf_ring_head

#if __has_include(<liburing/io_uring_version.h>)
#define IOURINGINLINE
#include <liburing.h>
#else
#define static
#define inline
#include <liburing.h>
#undef static
#undef inline
#endif

int plain_get_cqe(struct io_uring *ring, struct io_uring_cqe **cqe_ptr, unsigned submit,
		  unsigned wait_nr, sigset_t *sigmask)
{
	(void)ring, (void)submit, (void)wait_nr, (void)sigmask;
	*cqe_ptr = NULL;
	return -EAGAIN;
}

int plain_sqring_wait(struct io_uring *ring)
{
	(void)ring;
	return -ENOSYS;
}

int plain_buf_ring_head(struct io_uring *ring, int group, uint16_t *head)
{
	(void)ring, (void)group, (void)head;
	return -ENOSYS;
}

/* What bindgen calls its shims when it is not told another name. */
void io_uring_prep_nop__extern(struct io_uring_sqe *sqe)
{
	io_uring_prep_nop(sqe);
}

void io_uring_prep_madvise__extern(struct io_uring_sqe *sqe, void *addr, __u32 length, int advice)
{
	io_uring_prep_madvise(sqe, addr, length, advice);
}
