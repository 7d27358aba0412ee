/*
 * The C surface that is bound: bindgen reads this file, and the generated shims
 * include it. Everything that liburing's own headers declare is bound; what they
 * leave to a macro that bindgen cannot type is listed below.
 */

/* Headers since 2.8 hide two functions behind it; the shims must see them too. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <liburing.h>

/* Commands for io_uring's passthrough, where the kernel's headers have them. */
#if defined(__has_include)
#if __has_include(<linux/nvme_ioctl.h>)
#include <linux/nvme_ioctl.h>
#endif
#if __has_include(<linux/blkdev.h>)
#include <linux/blkdev.h>
#endif
#endif

/*
 * bindgen evaluates macros without their casts and loses those that refer to an
 * enum or to sizeof. build.rs leaves each NAME below out when it reads macros and
 * takes the constant's value and type instead. Unsigned macros are __u32, as
 * bindgen makes the others.
 */
#define TYPED(type, NAME) static const type liburing_sys_typed_##NAME = NAME

TYPED(__u64, LIBURING_UDATA_TIMEOUT);
TYPED(__u32, IORING_FILE_INDEX_ALLOC);

TYPED(__u32, IOSQE_FIXED_FILE);
TYPED(__u32, IOSQE_IO_DRAIN);
TYPED(__u32, IOSQE_IO_LINK);
TYPED(__u32, IOSQE_IO_HARDLINK);
TYPED(__u32, IOSQE_ASYNC);
TYPED(__u32, IOSQE_BUFFER_SELECT);
TYPED(__u32, IOSQE_CQE_SKIP_SUCCESS);

#ifdef IORING_CQE_F_TSTAMP_HW
TYPED(__u32, IORING_CQE_F_TSTAMP_HW);
#endif
#ifdef IORING_ZCRX_AREA_MASK
TYPED(__u64, IORING_ZCRX_AREA_MASK);
#endif

#ifdef NVME_URING_CMD_IO
TYPED(__u32, NVME_URING_CMD_IO);
TYPED(__u32, NVME_URING_CMD_IO_VEC);
#endif
#ifdef NVME_URING_CMD_ADMIN
TYPED(__u32, NVME_URING_CMD_ADMIN);
TYPED(__u32, NVME_URING_CMD_ADMIN_VEC);
#endif
#ifdef BLOCK_URING_CMD_DISCARD
TYPED(__u32, BLOCK_URING_CMD_DISCARD);
#endif
