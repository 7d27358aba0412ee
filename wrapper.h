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

#ifndef IORING_SETUP_DEFER_TASKRUN
#error "liburing.h is older than 2.3, which is needed"
#endif

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
 * bindgen evaluates macros without their types, takes unsigned ones for 32 bits
 * wide where they fit, and loses those that refer to an enum, a cast or sizeof.
 * build.rs leaves each NAME below out when it reads macros and takes the
 * constant's value and type instead. scripts/ledger finds the names that are
 * needed here. The codes that the kernel makes with sizeof are unsigned long in
 * C, as those for ioctl are; an SQE takes their 32 bits.
 */
#define TYPED(NAME) static const __typeof__(NAME) liburing_sys_typed_##NAME = NAME

TYPED(LIBURING_UDATA_TIMEOUT);
TYPED(IORING_FILE_INDEX_ALLOC);

TYPED(IOSQE_FIXED_FILE);
TYPED(IOSQE_IO_DRAIN);
TYPED(IOSQE_IO_LINK);
TYPED(IOSQE_IO_HARDLINK);
TYPED(IOSQE_ASYNC);
TYPED(IOSQE_BUFFER_SELECT);
TYPED(IOSQE_CQE_SKIP_SUCCESS);

TYPED(IORING_OFF_SQ_RING);
TYPED(IORING_OFF_CQ_RING);
TYPED(IORING_OFF_SQES);
#ifdef IORING_OFF_PBUF_RING
TYPED(IORING_OFF_PBUF_RING);
#endif
#ifdef IORING_OFF_MMAP_MASK
TYPED(IORING_OFF_MMAP_MASK);
#endif

#ifdef IORING_CQE_F_TSTAMP_HW
TYPED(IORING_CQE_F_TSTAMP_HW);
#endif
#ifdef IORING_ZCRX_AREA_MASK
TYPED(IORING_ZCRX_AREA_MASK);
#endif

#ifdef NVME_URING_CMD_IO
TYPED(NVME_URING_CMD_IO);
TYPED(NVME_URING_CMD_IO_VEC);
#endif
#ifdef NVME_URING_CMD_ADMIN
TYPED(NVME_URING_CMD_ADMIN);
TYPED(NVME_URING_CMD_ADMIN_VEC);
#endif
#ifdef BLOCK_URING_CMD_DISCARD
TYPED(BLOCK_URING_CMD_DISCARD);
#endif
