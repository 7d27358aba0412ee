//! What each function of liburing is here: a raw method, a safe form, or the reason why there is none.
//!
//! `docs/coverage.md` is made from the table below, and of what the sources say: `scripts/coverage --write`. That no
//! function is missing is a chain of three checks: the header's functions are in `liburing-sys/functions.txt`
//! (`scripts/ledger`, which asks the C compiler), those of `functions.txt` are in the table, and what the table names is in
//! the sources (the tests here).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::sqe::prep::LISTED;

/// Function, raw method, safe forms, and why there is no safe form, or what takes the place of a raw method.
///
/// Without a raw method there is `sysuring::sys`, which has all functions. "Safe as it is" is a raw method that is not
/// `unsafe`, and that nothing needs to be added to.
type Row = (&'static str, &'static str, &'static str, &'static str);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    // ---- Preparing entries
    ("__io_uring_prep_poll_mask", "", "", "internal: other functions of liburing are made of it"),
    ("__io_uring_prep_uring_cmd", "", "", "internal: other functions of liburing are made of it"),
    ("__io_uring_set_target_fixed_file", "", "", "internal: other functions of liburing are made of it"),
    ("_io_uring_get_sqe", "", "", "internal: other functions of liburing are made of it"),
    ("io_uring_get_sqe", "Ring::get_sqe", "", "safe as it is"),
    ("io_uring_get_sqe128", "", "", "for rings with entries of two sizes, which the builder does not make"),
    ("io_uring_initialize_sqe", "", "", "internal: other functions of liburing are made of it"),
    ("io_uring_prep_accept", "Sqe::prep_accept", "Operations::accept", ""),
    ("io_uring_prep_accept_direct", "Sqe::prep_accept_direct", "Operations::accept_direct", ""),
    ("io_uring_prep_bind", "Sqe::prep_bind", "Operations::bind", ""),
    ("io_uring_prep_cancel", "Sqe::prep_cancel64", "Ring::cancel, Scope::cancel", ""),
    ("io_uring_prep_cancel64", "Sqe::prep_cancel64", "Ring::cancel, Scope::cancel", ""),
    ("io_uring_prep_cancel_fd", "Sqe::prep_cancel_fd", "", "a ticket says what is meant, a descriptor what happens to be there"),
    ("io_uring_prep_close", "Sqe::prep_close", "Operations::close", ""),
    ("io_uring_prep_close_direct", "Sqe::prep_close_direct", "", "a FixedFile that is dropped closes its place when the last operation ended"),
    ("io_uring_prep_cmd_discard", "Sqe::prep_cmd_discard", "", "it destroys what is on a disk: raw only until somebody asks"),
    ("io_uring_prep_cmd_getsockname", "Sqe::prep_cmd_getsockname", "", "an address is asked for once, by getsockname(2)"),
    ("io_uring_prep_cmd_sock", "Sqe::prep_cmd_sock", "", "options of sockets are set once, by setsockopt(2)"),
    ("io_uring_prep_cmd_zone_reset_all", "", "", "of a liburing that is not released yet"),
    ("io_uring_prep_connect", "Sqe::prep_connect", "Operations::connect", ""),
    ("io_uring_prep_epoll_ctl", "Sqe::prep_epoll_ctl", "", "it changes what another reactor waits for; a poll of the ring takes its place"),
    ("io_uring_prep_epoll_wait", "Sqe::prep_epoll_wait", "", "for programs that still have an epoll loop: raw only until somebody asks"),
    ("io_uring_prep_fadvise", "Sqe::prep_fadvise", "", "advice changes no result: raw only until somebody asks"),
    ("io_uring_prep_fadvise64", "Sqe::prep_fadvise64", "", "as io_uring_prep_fadvise"),
    ("io_uring_prep_fallocate", "Sqe::prep_fallocate", "Operations::fallocate", ""),
    ("io_uring_prep_fgetxattr", "Sqe::prep_fgetxattr", "", "as io_uring_prep_getxattr"),
    ("io_uring_prep_files_update", "Sqe::prep_files_update", "Ring::register_file", ""),
    ("io_uring_prep_fixed_fd_install", "Sqe::prep_fixed_fd_install", "", "it makes a descriptor of what has a number: raw only until somebody asks"),
    ("io_uring_prep_fsetxattr", "Sqe::prep_fsetxattr", "", "as io_uring_prep_getxattr"),
    ("io_uring_prep_fsync", "Sqe::prep_fsync", "Operations::fsync", ""),
    ("io_uring_prep_ftruncate", "Sqe::prep_ftruncate", "Operations::ftruncate", ""),
    ("io_uring_prep_futex_wait", "Sqe::prep_futex_wait", "", "as io_uring_prep_futex_wake"),
    ("io_uring_prep_futex_waitv", "Sqe::prep_futex_waitv", "", "as io_uring_prep_futex_wake"),
    ("io_uring_prep_futex_wake", "Sqe::prep_futex_wake", "", "a futex is an address: a safe one would own its memory"),
    ("io_uring_prep_getxattr", "Sqe::prep_getxattr", "", "attributes are rare on a fast path: raw only until somebody asks"),
    ("io_uring_prep_link", "Sqe::prep_link", "Operations::link", ""),
    ("io_uring_prep_link_timeout", "Sqe::prep_link_timeout", "Chain::link_timeout", ""),
    ("io_uring_prep_linkat", "Sqe::prep_linkat", "Operations::link", ""),
    ("io_uring_prep_listen", "Sqe::prep_listen", "Operations::listen", ""),
    ("io_uring_prep_madvise", "Sqe::prep_madvise", "", "it empties and unmaps memory by its address, whoever has it"),
    ("io_uring_prep_madvise64", "Sqe::prep_madvise64", "", "as io_uring_prep_madvise"),
    ("io_uring_prep_mkdir", "Sqe::prep_mkdir", "Operations::mkdir", ""),
    ("io_uring_prep_mkdirat", "Sqe::prep_mkdirat", "Operations::mkdir", ""),
    ("io_uring_prep_msg_ring", "Sqe::prep_msg_ring", "Operations::message, Ring::mailbox", ""),
    ("io_uring_prep_msg_ring_cqe_flags", "Sqe::prep_msg_ring_cqe_flags", "", "flags of a completion mean something only to who made the operation"),
    ("io_uring_prep_msg_ring_fd", "Sqe::prep_msg_ring_fd", "", "it fills a place in a table that may not be ours"),
    ("io_uring_prep_msg_ring_fd_alloc", "Sqe::prep_msg_ring_fd_alloc", "", "as io_uring_prep_msg_ring_fd"),
    ("io_uring_prep_multishot_accept", "Sqe::prep_multishot_accept", "Ring::accept_multishot", ""),
    ("io_uring_prep_multishot_accept_direct", "Sqe::prep_multishot_accept_direct", "", "the kernel would pick places of a table that the ring numbers"),
    ("io_uring_prep_nop", "Sqe::prep_nop", "Operations::nop", ""),
    ("io_uring_prep_nop128", "Sqe::prep_nop128", "", "it tests entries of 128 bytes, and nothing else"),
    ("io_uring_prep_open", "Sqe::prep_open", "Operations::open", ""),
    ("io_uring_prep_open_direct", "Sqe::prep_open_direct", "Operations::open_direct", ""),
    ("io_uring_prep_openat", "Sqe::prep_openat", "Operations::open", ""),
    ("io_uring_prep_openat2", "Sqe::prep_openat2", "Operations::open_how", ""),
    ("io_uring_prep_openat2_direct", "Sqe::prep_openat2_direct", "", "raw only until somebody asks"),
    ("io_uring_prep_openat_direct", "Sqe::prep_openat_direct", "Operations::open_direct", ""),
    ("io_uring_prep_pipe", "Sqe::prep_pipe", "", "raw only until somebody asks"),
    ("io_uring_prep_pipe_direct", "Sqe::prep_pipe_direct", "", "as io_uring_prep_pipe"),
    ("io_uring_prep_poll_add", "Sqe::prep_poll_add", "Operations::poll", ""),
    ("io_uring_prep_poll_multishot", "Sqe::prep_poll_multishot", "Ring::poll_multishot", ""),
    ("io_uring_prep_poll_remove", "Sqe::prep_poll_remove", "Ring::cancel", ""),
    ("io_uring_prep_poll_update", "Sqe::prep_poll_update", "", "a safe poll is cancelled, and another one started"),
    ("io_uring_prep_provide_buffers", "Sqe::prep_provide_buffers", "Ring::provide_buffers", ""),
    ("io_uring_prep_read", "Sqe::prep_read", "Operations::read, Operations::read_owned, Scope::read", ""),
    ("io_uring_prep_read_fixed", "Sqe::prep_read_fixed", "Operations::read_fixed", ""),
    ("io_uring_prep_read_multishot", "Sqe::prep_read_multishot", "Ring::read_multishot", ""),
    ("io_uring_prep_readv", "Sqe::prep_readv", "Operations::read_vectored, Operations::read_vectored_owned, Scope::read_vectored", ""),
    ("io_uring_prep_readv2", "Sqe::prep_readv2", "", "RWF_* flags: raw only until somebody asks"),
    ("io_uring_prep_readv_fixed", "Sqe::prep_readv_fixed", "", "leases of a registered pool are read one by one: raw only until somebody asks"),
    ("io_uring_prep_recv", "Sqe::prep_recv", "Operations::recv, Operations::recv_owned, Scope::recv, Ring::recv_provided", ""),
    ("io_uring_prep_recv_multishot", "Sqe::prep_recv_multishot", "Ring::recv_multishot", ""),
    ("io_uring_prep_recvmsg", "Sqe::prep_recvmsg", "Operations::recvmsg, Operations::recvmsg_owned", ""),
    ("io_uring_prep_recvmsg_multishot", "Sqe::prep_recvmsg_multishot", "", "its header stands in the buffer that the kernel picks, where nothing keeps it apart from the data: raw only until somebody asks"),
    ("io_uring_prep_remove_buffers", "Sqe::prep_remove_buffers", "Ring::remove_buffers", ""),
    ("io_uring_prep_rename", "Sqe::prep_rename", "Operations::rename", ""),
    ("io_uring_prep_renameat", "Sqe::prep_renameat", "Operations::rename", ""),
    ("io_uring_prep_rw", "Sqe::prep_rw", "", "it fills in any operation"),
    ("io_uring_prep_send", "Sqe::prep_send", "Operations::send, Operations::send_owned, Scope::send", ""),
    ("io_uring_prep_send_bundle", "Sqe::prep_send_bundle", "", "raw only until somebody asks"),
    ("io_uring_prep_send_set_addr", "Queued::prep_send_set_addr", "Operations::sendmsg", ""),
    ("io_uring_prep_send_zc", "Sqe::prep_send_zc", "Operations::send_zero_copy", ""),
    ("io_uring_prep_send_zc_fixed", "Sqe::prep_send_zc_fixed", "", "raw only until somebody asks"),
    ("io_uring_prep_sendmsg", "Sqe::prep_sendmsg", "Operations::sendmsg, Operations::sendmsg_owned", ""),
    ("io_uring_prep_sendmsg_zc", "Sqe::prep_sendmsg_zc", "", "raw only until somebody asks"),
    ("io_uring_prep_sendmsg_zc_fixed", "Sqe::prep_sendmsg_zc_fixed", "", "raw only until somebody asks"),
    ("io_uring_prep_sendto", "Sqe::prep_sendto", "Operations::sendmsg", ""),
    ("io_uring_prep_setxattr", "Sqe::prep_setxattr", "", "as io_uring_prep_getxattr"),
    ("io_uring_prep_shutdown", "Sqe::prep_shutdown", "Operations::shutdown_socket", ""),
    ("io_uring_prep_socket", "Sqe::prep_socket", "Operations::socket", ""),
    ("io_uring_prep_socket_direct", "Sqe::prep_socket_direct", "Operations::socket_direct", ""),
    ("io_uring_prep_socket_direct_alloc", "Sqe::prep_socket_direct_alloc", "", "as io_uring_prep_multishot_accept_direct"),
    ("io_uring_prep_splice", "Sqe::prep_splice", "Operations::splice", ""),
    ("io_uring_prep_statx", "Sqe::prep_statx", "Operations::statx", ""),
    ("io_uring_prep_symlink", "Sqe::prep_symlink", "Operations::symlink", ""),
    ("io_uring_prep_symlinkat", "Sqe::prep_symlinkat", "Operations::symlink", ""),
    ("io_uring_prep_sync_file_range", "Sqe::prep_sync_file_range", "Operations::sync_file_range", ""),
    ("io_uring_prep_tee", "Sqe::prep_tee", "", "raw only until somebody asks"),
    ("io_uring_prep_timeout", "Sqe::prep_timeout", "Operations::timeout", ""),
    ("io_uring_prep_timeout_remove", "Sqe::prep_timeout_remove", "Ring::cancel", ""),
    ("io_uring_prep_timeout_update", "Sqe::prep_timeout_update", "", "a safe timeout is cancelled, and another one started"),
    ("io_uring_prep_unlink", "Sqe::prep_unlink", "Operations::unlink", ""),
    ("io_uring_prep_unlinkat", "Sqe::prep_unlinkat", "Operations::unlink", ""),
    ("io_uring_prep_uring_cmd", "Sqe::prep_uring_cmd", "", "what a command does is the driver's to say"),
    ("io_uring_prep_uring_cmd128", "Sqe::prep_uring_cmd128", "", "as io_uring_prep_uring_cmd"),
    ("io_uring_prep_waitid", "Sqe::prep_waitid", "", "a child belongs to whoever started it, and std::process waits for it"),
    ("io_uring_prep_write", "Sqe::prep_write", "Operations::write, Operations::write_owned, Scope::write", ""),
    ("io_uring_prep_write_fixed", "Sqe::prep_write_fixed", "Operations::write_fixed", ""),
    ("io_uring_prep_writev", "Sqe::prep_writev", "Operations::write_vectored, Operations::write_vectored_owned, Scope::write_vectored", ""),
    ("io_uring_prep_writev2", "Sqe::prep_writev2", "", "RWF_* flags: raw only until somebody asks"),
    ("io_uring_prep_writev_fixed", "Sqe::prep_writev_fixed", "", "leases of a registered pool are written one by one: raw only until somebody asks"),
    ("io_uring_sqe_set_buf_group", "Queued::set_buf_group", "", "ProvidedBuffers is the group"),
    ("io_uring_sqe_set_data", "Queued::set_data64", "", "a ticket takes its place"),
    ("io_uring_sqe_set_data64", "Queued::set_data64", "", "a ticket takes its place"),
    ("io_uring_sqe_set_flags", "Queued::set_flags", "Ring::drained, Ring::forced_async, Ring::chain", ""),
    // ---- Registering
    ("__io_uring_buf_ring_cq_advance", "", "", "internal: other functions of liburing are made of it"),
    ("__io_uring_clone_buffers", "Ring::clone_buffers", "Ring::clone_pools", ""),
    ("__io_uring_clone_buffers_offset", "Ring::clone_buffers_offset", "", "safe as it is"),
    ("io_uring_buf_ring_add", "", "Ring::provide_buffers", "memory of the caller, not a ring"),
    ("io_uring_buf_ring_advance", "", "Ring::provide_buffers", "memory of the caller, not a ring"),
    ("io_uring_buf_ring_available", "", "", "the ring counts what its groups of buffers have left"),
    ("io_uring_buf_ring_cq_advance", "", "Ring::completions", "memory of the caller, beside a ring"),
    ("io_uring_buf_ring_head", "Ring::buf_ring_head", "", "the ring counts what its groups of buffers have left"),
    ("io_uring_buf_ring_init", "", "Ring::provide_buffers", "memory of the caller, not a ring"),
    ("io_uring_buf_ring_mask", "", "Ring::provide_buffers", "a number of the caller, not a ring"),
    ("io_uring_clone_buffers", "Ring::clone_buffers", "Ring::clone_pools", ""),
    ("io_uring_clone_buffers_offset", "Ring::clone_buffers_offset", "", "safe as it is"),
    ("io_uring_close_ring_fd", "Ring::close_ring_fd", "", "safe as it is"),
    ("io_uring_cq_eventfd_enabled", "Ring::cq_eventfd_enabled", "", "safe as it is"),
    ("io_uring_cq_eventfd_toggle", "Ring::cq_eventfd_toggle", "", "safe as it is"),
    ("io_uring_enable_rings", "DisabledRing::enable", "", "safe as it is"),
    ("io_uring_free_buf_ring", "Ring::free_buf_ring", "Ring::remove_buffers", ""),
    ("io_uring_register", "", "", "the system call"),
    ("io_uring_register_bpf_filter", "Ring::register_bpf_filter", "", "its argument leads to a program in memory: raw only until somebody asks"),
    ("io_uring_register_bpf_filter_task", "", "", "not a ring's, but all rings' of the thread"),
    ("io_uring_register_buf_ring", "Ring::register_buf_ring", "Ring::provide_buffers", ""),
    ("io_uring_register_buffers", "Ring::register_buffers", "Ring::register_pool", ""),
    ("io_uring_register_buffers_sparse", "Ring::register_buffers_sparse", "Ring::register_pool", ""),
    ("io_uring_register_buffers_tags", "Ring::register_buffers_tags", "", "a lease comes back with its completion: nobody has to be told when a buffer is free"),
    ("io_uring_register_buffers_update_tag", "Ring::register_buffers_update_tag", "Ring::register_pool", ""),
    ("io_uring_register_clock", "Ring::register_clock", "", "safe as it is"),
    ("io_uring_register_eventfd", "Ring::register_eventfd", "", "safe as it is"),
    ("io_uring_register_eventfd_async", "Ring::register_eventfd_async", "", "safe as it is"),
    ("io_uring_register_file_alloc_range", "Ring::register_file_alloc_range", "", "safe as it is"),
    ("io_uring_register_files", "Ring::register_files", "Ring::register_file", ""),
    ("io_uring_register_files_sparse", "Ring::register_files_sparse", "Ring::register_file", ""),
    ("io_uring_register_files_tags", "Ring::register_files_tags", "", "a FixedFile is let go when the last operation ended: nobody has to be told"),
    ("io_uring_register_files_update", "Ring::register_files_update", "Ring::register_file", ""),
    ("io_uring_register_files_update_tag", "Ring::register_files_update_tag", "", "as io_uring_register_files_tags"),
    ("io_uring_register_ifq", "Ring::register_ifq", "", "receiving without a copy shares memory with a device: raw only until somebody asks"),
    ("io_uring_register_iowq_aff", "Ring::register_iowq_aff", "", "safe as it is"),
    ("io_uring_register_iowq_max_workers", "Ring::register_iowq_max_workers", "", "safe as it is"),
    ("io_uring_register_napi", "Ring::register_napi", "", "safe as it is"),
    ("io_uring_register_personality", "Ring::register_personality", "", "safe as it is"),
    ("io_uring_register_probe", "Ring::opcode_supported", "Probe::get", ""),
    ("io_uring_register_query", "", "", "not a ring's"),
    ("io_uring_register_region", "Ring::register_region", "", "memory that is shared for good: raw only until somebody asks"),
    ("io_uring_register_restrictions", "DisabledRing::register_restrictions", "", "safe as it is"),
    ("io_uring_register_ring_fd", "Ring::register_ring_fd", "", "safe as it is"),
    ("io_uring_register_sync_cancel", "Ring::register_sync_cancel", "", "safe as it is"),
    ("io_uring_register_sync_msg", "", "", "it needs no ring, and makes a completion on one by its number"),
    ("io_uring_register_wait_reg", "Ring::register_wait_reg", "", "as io_uring_register_region"),
    ("io_uring_register_zcrx_ctrl", "Ring::register_zcrx_ctrl", "", "as io_uring_register_ifq"),
    ("io_uring_resize_rings", "", "", "the table of operations has as many entries as the completion queue: a call by `sys` would make them differ"),
    ("io_uring_set_iowait", "Ring::set_iowait", "", "safe as it is"),
    ("io_uring_setup_buf_ring", "Ring::setup_buf_ring", "Ring::provide_buffers", ""),
    ("io_uring_unregister_buf_ring", "Ring::unregister_buf_ring", "Ring::remove_buffers", ""),
    ("io_uring_unregister_buffers", "Ring::unregister_buffers", "Ring::unregister_pool", ""),
    ("io_uring_unregister_eventfd", "Ring::unregister_eventfd", "", "safe as it is"),
    ("io_uring_unregister_files", "Ring::unregister_files", "Ring::register_file", ""),
    ("io_uring_unregister_iowq_aff", "Ring::unregister_iowq_aff", "", "safe as it is"),
    ("io_uring_unregister_napi", "Ring::unregister_napi", "", "safe as it is"),
    ("io_uring_unregister_personality", "Ring::unregister_personality", "", "safe as it is"),
    ("io_uring_unregister_ring_fd", "Ring::unregister_ring_fd", "", "safe as it is"),
    // ---- Making rings, submitting, completions, and the rest
    ("__io_uring_get_cqe", "", "", "internal: other functions of liburing are made of it"),
    ("__io_uring_peek_cqe", "", "", "internal: other functions of liburing are made of it"),
    ("__io_uring_sqring_wait", "", "", "internal: other functions of liburing are made of it"),
    ("io_uring_check_version", "", "Library::require", "not a ring's"),
    ("io_uring_cq_advance", "", "Ring::completions", "a completion is taken when the iterator gives it"),
    ("io_uring_cq_has_overflow", "Ring::cq_has_overflow", "", "safe as it is"),
    ("io_uring_cq_ready", "Ring::cq_ready", "", "safe as it is"),
    ("io_uring_cqe_get_data", "Cqe::user_data", "Done::ticket", ""),
    ("io_uring_cqe_get_data64", "Cqe::user_data", "Done::ticket", ""),
    ("io_uring_cqe_iter_init", "", "", "internal: other functions of liburing are made of it"),
    ("io_uring_cqe_iter_next", "", "", "internal: other functions of liburing are made of it"),
    ("io_uring_cqe_nr", "", "", "internal: other functions of liburing are made of it"),
    ("io_uring_cqe_seen", "", "Ring::completions", "a completion is taken when the iterator gives it"),
    ("io_uring_cqe_shift", "", "", "internal: other functions of liburing are made of it"),
    ("io_uring_cqe_shift_from_flags", "", "", "internal: other functions of liburing are made of it"),
    ("io_uring_enter", "", "Ring::submit, Ring::submit_and_wait", "the system call"),
    ("io_uring_enter2", "", "Ring::submit, Ring::submit_and_wait", "the system call"),
    ("io_uring_free_probe", "", "Probe::get", "memory of the library"),
    ("io_uring_get_events", "", "Ring::completions", "the iterator asks the kernel where that holds something back"),
    ("io_uring_get_probe", "", "Probe::get", "memory of the library"),
    ("io_uring_get_probe_ring", "Ring::opcode_supported", "Probe::get", ""),
    ("io_uring_load_sq_head", "", "", "internal: other functions of liburing are made of it"),
    ("io_uring_major_version", "", "Library::get", "not a ring's"),
    ("io_uring_memory_size", "", "", "an estimate, before a ring is made"),
    ("io_uring_memory_size_params", "", "", "an estimate, before a ring is made"),
    ("io_uring_minor_version", "", "Library::get", "not a ring's"),
    ("io_uring_mlock_size", "", "", "an estimate, before a ring is made"),
    ("io_uring_mlock_size_params", "", "", "an estimate, before a ring is made"),
    ("io_uring_opcode_supported", "Ring::opcode_supported", "Probe::get", ""),
    ("io_uring_peek_batch_cqe", "", "Ring::completions", "the iterator takes what is there"),
    ("io_uring_peek_cqe", "", "Ring::completions", "the iterator takes what is there"),
    ("io_uring_queue_exit", "", "Ring::shutdown", "dropping a ring closes it"),
    ("io_uring_queue_init", "", "Ring::with_entries", "it makes a ring"),
    ("io_uring_queue_init_mem", "", "", "a ring in memory of the caller, which would have to outlive what the kernel does with it"),
    ("io_uring_queue_init_params", "", "RingBuilder::build", "it makes a ring"),
    ("io_uring_queue_mmap", "", "", "a ring that somebody else set up"),
    ("io_uring_recvmsg_cmsg_firsthdr", "", "", "memory of the caller, not a ring"),
    ("io_uring_recvmsg_cmsg_nexthdr", "", "", "memory of the caller, not a ring"),
    ("io_uring_recvmsg_name", "", "", "memory of the caller, not a ring"),
    ("io_uring_recvmsg_payload", "", "", "memory of the caller, not a ring"),
    ("io_uring_recvmsg_payload_length", "", "", "memory of the caller, not a ring"),
    ("io_uring_recvmsg_validate", "", "", "memory of the caller, not a ring"),
    ("io_uring_ring_dontfork", "", "", "a ring knows by itself that it is in a forked child, where its mappings harm nobody"),
    ("io_uring_setup", "", "RingBuilder::build", "the system call"),
    ("io_uring_skip_cqe", "", "", "internal: other functions of liburing are made of it"),
    ("io_uring_sq_ready", "Ring::sq_ready", "", "safe as it is"),
    ("io_uring_sq_space_left", "Ring::sq_space_left", "", "safe as it is"),
    ("io_uring_sqe_shift", "", "", "internal: other functions of liburing are made of it"),
    ("io_uring_sqe_shift_from_flags", "", "", "internal: other functions of liburing are made of it"),
    ("io_uring_sqring_wait", "", "", "for rings with a polling thread: a submit makes room as well"),
    ("io_uring_submit", "", "Ring::submit, SharedRing::submit", ""),
    ("io_uring_submit_and_get_events", "", "Ring::submit, Ring::completions", "the iterator asks the kernel where that holds something back"),
    ("io_uring_submit_and_wait", "", "Ring::submit_and_wait", ""),
    ("io_uring_submit_and_wait_min_timeout", "", "", "waiting for a number, or less after some time: raw only until somebody asks"),
    ("io_uring_submit_and_wait_reg", "", "", "its arguments lie in a registered region"),
    ("io_uring_submit_and_wait_timeout", "", "Ring::submit_and_wait_timeout", ""),
    ("io_uring_wait_cqe", "", "Ring::submit_and_wait, SharedRing::wait", ""),
    ("io_uring_wait_cqe_nr", "", "Ring::submit_and_wait", ""),
    ("io_uring_wait_cqe_timeout", "", "Ring::submit_and_wait_timeout", ""),
    ("io_uring_wait_cqes", "", "Ring::submit_and_wait_timeout", ""),
    ("io_uring_wait_cqes_min_timeout", "", "", "as io_uring_submit_and_wait_min_timeout"),
    ("uring_ptr_to_u64", "", "", "internal: other functions of liburing are made of it"),
];

/// The parts of the page, and what the first function of each is.
const PARTS: &[(&str, &str)] = &[
    ("Preparing entries", "__io_uring_prep_poll_mask"),
    ("Registering", "__io_uring_buf_ring_cq_advance"),
    ("Rings, submissions, completions and the rest", "__io_uring_get_cqe"),
];

const INTRODUCTION: &str = "\
# What each function of liburing is here

`scripts/coverage --write` makes this page; `scripts/test` compares it with the sources.

* *Raw* has liburing's own name and obligations. What its caller owes is its contract: `file`, a descriptor stays open;
  `memory`, what pointers lead to stays valid; `group`, so do the buffers of a group; `number`, what is named by a number is
  the caller's; `message`, a completion on another ring is taken for one. `unsafe` alone: its documentation says it. Where
  nothing is owed, the call is safe. `sys` is the function itself, in `sysuring::sys`.
* *liburing*, *Linux*: the versions that brought it.
* *Safe* is what a program without `unsafe` calls instead, or why there is nothing of the kind.

A function that is newer than the header that a program is built with is not there; one that is newer than the library that
runs is `ErrorKind::Unsupported`, with the version that brought it. The kernel's part is told by `Probe` and
`Ring::opcode_supported`.
";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: impl AsRef<Path>) -> String {
    let file = root().join(file);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The functions of liburing's headers, and the version that brought each.
fn functions() -> BTreeMap<String, String> {
    let list = read("liburing-sys/functions.txt");
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut fields = line.split(' ').map(str::to_owned);
            (fields.next().unwrap(), fields.next().unwrap())
        })
        .collect()
}

/// Where methods of a type are.
fn sources(of: &str) -> &'static [&'static str] {
    match of {
        "Chain" => &["chain"],
        "Cqe" => &["cqe"],
        "DisabledRing" => &["register", "ring"],
        "Done" => &["completion"],
        "Library" => &["library"],
        "Operations" => &["operations"],
        "Probe" => &["probe"],
        "Queued" | "Sqe" => &["sqe"],
        "Ring" => &["chain", "mailbox", "multishot", "register", "registered", "ring"],
        "RingBuilder" => &["builder"],
        "Scope" => &["scope"],
        "SharedRing" => &["shared"],
        _ => panic!("{of} is in no source that is known here"),
    }
}

/// How a method is declared: `fn`, `pub fn` or `pub unsafe fn`; `None` where there is none of this name.
fn declaration(method: &str) -> Option<&'static str> {
    let (of, name) = method.split_once("::").expect("a type and a method");
    if of == "Sqe" && LISTED.iter().any(|listed| listed.name == name) {
        return Some("listed");
    }
    let texts = sources(of).iter().map(|file| read(PathBuf::from("src").join(file).with_extension("rs")));
    let text: String = texts.collect();
    let is_there = |before: &str| ["(", "<"].iter().any(|after| text.contains(&format!("    {before} {name}{after}")));
    ["pub unsafe fn", "pub fn", "fn"].into_iter().find(|before| is_there(before))
}

/// What the caller of a raw method owes, as the page has it.
fn owed(raw: &str) -> String {
    if raw.is_empty() {
        return String::new();
    }
    let listed = LISTED.iter().find(|listed| Some(listed.name) == raw.strip_prefix("Sqe::"));
    match (listed, declaration(raw)) {
        (Some(listed), _) if listed.contract == "safe" => String::new(),
        (Some(listed), _) => {
            let contracts = listed.contract.trim_start_matches("unsafe").trim();
            contracts.trim_matches(['(', ')']).replace(" ,", ",")
        }
        (None, Some("pub unsafe fn")) => "unsafe".to_owned(),
        (None, _) => String::new(),
    }
}

/// What the sources say: the version of Linux that a function needs.
fn kernels() -> BTreeMap<String, String> {
    let listed = LISTED.iter().map(|listed| (listed.function.to_owned(), listed.linux.to_owned()));
    listed.chain(references().into_iter().map(|(function, _, linux)| (function, linux))).collect()
}

/// Each `reference!` of register.rs: function, version of liburing, version of Linux.
fn references() -> Vec<(String, String, String)> {
    let text = read("src/register.rs");
    let references = text.split("reference!(").skip(1).map(|rest| {
        let mut fields = rest.split([',', ')']).map(|field| field.trim().trim_matches('"').to_owned());
        let mut field = || fields.next().unwrap();
        (field(), field(), field())
    });
    references.collect()
}

fn page() -> String {
    let (functions, kernels) = (functions(), kernels());
    let mut text = INTRODUCTION.to_owned();
    let raw = TABLE.iter().filter(|row| !row.1.is_empty()).count();
    let is_unsafe = TABLE.iter().filter(|row| !owed(row.1).is_empty()).count();
    let safe = TABLE.iter().filter(|row| !row.2.is_empty() || (!row.1.is_empty() && owed(row.1).is_empty())).count();
    let all = TABLE.len();
    writeln!(
        text,
        "\nOf {all} functions {raw} have a raw method, {is_unsafe} of them `unsafe`; what {safe} do can be had without \
         `unsafe`."
    )
    .unwrap();
    for &(function, raw, safe, why) in TABLE {
        if let Some((title, _)) = PARTS.iter().find(|(_, first)| *first == function) {
            writeln!(
                text,
                "\n## {title}\n\n| function | liburing | Linux | raw | owed | safe |\n|{}",
                "---|".repeat(6)
            )
            .unwrap();
        }
        let code = |names: &str| {
            let names = names.split(", ").filter(|name| !name.is_empty());
            names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        };
        let raw_form = if raw.is_empty() { "`sys`".to_owned() } else { code(raw) };
        let safe = match (safe, why) {
            (safe, "") => code(safe),
            ("", why) => format!("*{why}*"),
            (safe, why) => format!("{}: *{why}*", code(safe)),
        };
        let (liburing, linux) = (&functions[function], kernels.get(function).map_or("", String::as_str));
        let owed = if raw.is_empty() { "as in C".to_owned() } else { owed(raw) };
        writeln!(text, "| `{function}` | {liburing} | {linux} | {raw_form} | {owed} | {safe} |").unwrap();
    }
    text
}

#[test]
fn every_function_is_in_the_table() {
    let mut left = functions();
    for (function, ..) in TABLE {
        assert!(left.remove(*function).is_some(), "{function} is in the table twice, or not in functions.txt");
    }
    assert!(left.is_empty(), "not in the table of src/coverage.rs: {:?}", left.keys());
    for (_, first) in PARTS {
        assert!(TABLE.iter().any(|row| row.0 == *first), "no part of the page begins with {first}");
    }
}

#[test]
fn what_the_table_names_is_there() {
    for &(function, raw, safe, why) in TABLE {
        for method in [raw, safe].iter().flat_map(|names| names.split(", ")).filter(|name| !name.is_empty()) {
            assert!(declaration(method).is_some(), "{function}: there is no {method}");
        }
        let is_safe = !raw.is_empty() && owed(raw).is_empty();
        assert!(!safe.is_empty() || !why.is_empty(), "{function} has no safe form, and no reason");
        assert!(why != "safe as it is" || (is_safe && safe.is_empty()), "{function} is not safe as it is");
        if let Some(other) = why.strip_prefix("as ") {
            assert!(TABLE.iter().any(|row| row.0 == other), "{function}: as what?");
        }
        if !raw.is_empty() && !function.starts_with("__") {
            let of = raw.split_once("::").unwrap().0;
            let in_list = LISTED.iter().any(|listed| listed.attributes.contains(&format!("\"{function}\"")));
            let has_alias = |file: &&str| read(format!("src/{file}.rs")).contains(&format!("\"{function}\""));
            assert!(in_list || sources(of).iter().any(has_alias), "{raw} has no alias {function}");
        }
    }
    for listed in LISTED {
        let row = TABLE.iter().find(|row| row.0 == listed.function).expect(listed.function);
        let prefers = row.1.strip_prefix("Sqe::");
        assert_eq!(prefers, Some(listed.name), "{}", listed.function);
    }
}

/// In `register.rs` versions stand beside the methods, as they do in the list of preparations.
#[test]
fn registrations_say_since_when_they_are_there() {
    let functions = functions();
    let text = read("src/register.rs");
    let mut found = 0;
    for block in text.split("\n    }\n") {
        let Some((_, reference)) = block.split_once("reference!(") else { continue };
        let mut fields = reference.split([',', ')']).map(|field| field.trim().trim_matches('"'));
        let (function, since) = (fields.next().unwrap(), fields.next().unwrap());
        assert_eq!(functions.get(function).map(String::as_str), Some(since), "{function}");
        let gate = format!("liburing_{}", since.replace('.', "_"));
        let minor: u32 = since.split('.').nth(1).unwrap().parse().unwrap();
        assert_eq!(block.contains("#[cfg(liburing_"), minor > 3, "{function} is of {since}");
        assert!(minor <= 3 || block.contains(&format!("#[cfg({gate})]")), "{function} is of {since}");
        let required = format!("ring_for(\"{function}\")");
        assert_eq!(block.contains("ring_for(\""), minor > 3, "{function} is of {since}");
        assert!(minor <= 3 || block.contains(&required), "{function}: another function is required");
        found += 1;
    }
    assert!(found > 40, "the sources are not written as they were: {found}");
}

#[test]
fn the_page_is_up_to_date() {
    let page = page();
    let file = root().join("docs/coverage.md");
    if std::env::var_os("SYSURING_WRITE_COVERAGE").is_some() {
        fs::write(&file, &page).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    let differs = page.lines().zip(written.lines().chain(std::iter::repeat(""))).find(|(is, was)| is != was);
    assert!(
        differs.is_none() && page == written,
        "docs/coverage.md is out of date (scripts/coverage --write): {differs:?}"
    );
}
