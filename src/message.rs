//! Messages of sockets: an address, memory and descriptors at once.
//!
//! The header that the kernel reads and writes is in the operation's parcel, with all that it leads to. Descriptors that come
//! with a message are the process's from the moment on that the kernel put them there, so that they are owned as soon as the
//! completion is seen, whoever asks for them, or nobody.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::slice;
use std::sync::Arc;

use crate::address::SocketAddress;
use crate::core::Operation;
use crate::parcel::{Parameters, Parcel, address_of};
use crate::pool::Buf;
use crate::table::NoBuffers;

/// What goes with the data of [`Operations::sendmsg`](crate::Operations::sendmsg).
///
/// ```
/// use sysuring::SendMessage;
///
/// let address = std::net::SocketAddr::from(([127, 0, 0, 1], 9)).into();
/// let message = SendMessage { to: Some(&address), ..SendMessage::default() };
/// assert!(message.descriptors.is_empty());
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct SendMessage<'a> {
    /// Where it goes; `None` where the socket is connected.
    pub to: Option<&'a SocketAddress>,
    /// What the receiver gets a descriptor of, over a Unix socket (`SCM_RIGHTS`, since Linux 5.12); the kernel takes 253 at
    /// most. The operation keeps them open.
    pub descriptors: &'a [Arc<OwnedFd>],
    /// Those of `sendmsg(2)`, but for `MSG_ZEROCOPY`, which is ignored.
    pub flags: i32,
}

/// What [`Operations::recvmsg`](crate::Operations::recvmsg) received, beside its length, which is the operation's result. Made by
/// [`Done::into_message`](crate::Done::into_message).
#[derive(Debug)]
#[non_exhaustive]
pub struct Message<B = NoBuffers> {
    /// The leases that were given, in their order.
    pub bufs: Vec<Buf>,
    /// The buffers that were moved in instead, in their order.
    pub several: Vec<B>,
    /// Whose message it is, where the kernel says so: that of a connected socket has no address.
    pub from: Option<SocketAddress>,
    /// What `msg_flags` of `recvmsg(2)` says: `MSG_TRUNC` for a datagram longer than the memory, `MSG_CTRUNC` where more came
    /// with it than there was room for, `MSG_EOR`, `MSG_OOB`, `MSG_ERRQUEUE`.
    pub flags: i32,
    /// The descriptors that came with it, close-on-exec; those that are not taken are closed.
    pub descriptors: Vec<OwnedFd>,
}

/// The most descriptors that one message carries (`SCM_MAX_FD`).
const MOST_DESCRIPTORS: usize = 253;

/// A pidfd of the sender, on sockets with `SO_PASSPIDFD`; the libc crate has no name for it.
const SCM_PIDFD: i32 = 4;

/// Where in a control message its level, its kind and its data begin; the length is before.
const LEVEL: usize = size_of::<usize>();
const KIND: usize = LEVEL + 4;
const DATA: usize = KIND + 4;

/// The kernel's header of a message, with what it leads to.
pub(crate) struct Header {
    header: libc::msghdr,
    /// Control data, in whole words, as its headers are aligned.
    control: Vec<u64>,
    /// Kept open until they are sent.
    sent: Vec<Arc<OwnedFd>>,
    received: Vec<OwnedFd>,
    is_receive: bool,
}

impl Header {
    pub(crate) fn empty() -> Self {
        // SAFETY: a plain C structure, for which all zeroes is a value.
        let header = unsafe { std::mem::zeroed() };
        Self { header, control: Vec::new(), sent: Vec::new(), received: Vec::new(), is_receive: false }
    }

    /// Lets go of what was sent, and forgets its numbers, which the next message must not take for received ones. Whether there
    /// is a message that was to be received.
    pub(crate) fn let_go(&mut self) -> bool {
        self.sent.clear();
        self.control.clear();
        self.is_receive
    }

    /// Nothing was started.
    pub(crate) fn withdraw(&mut self) {
        self.is_receive = false;
    }

    /// Makes room for control data with `count` descriptors, all zeroes.
    #[allow(trivial_numeric_casts)] // The type is another one in other C libraries.
    fn make_room(&mut self, count: usize) {
        let bytes = if count == 0 { 0 } else { DATA + count * size_of::<RawFd>() };
        self.control.clear();
        self.control.resize(bytes.div_ceil(size_of::<u64>()), 0);
        self.header.msg_control = if bytes == 0 { ptr::null_mut() } else { self.control.as_mut_ptr().cast() };
        self.header.msg_controllen = bytes as _;
        let _ = self.control.as_ptr().expose_provenance();
    }

    /// The control data.
    fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, words) = (self.control.as_mut_ptr(), self.control.len());
        // SAFETY: the words as bytes, borrowed as `self` is; the kernel is through with them, or has not seen them.
        unsafe { slice::from_raw_parts_mut(start.cast(), words * size_of::<u64>()) }
    }

    /// Makes control data of descriptors, and keeps them open.
    fn put_descriptors(&mut self, descriptors: &[Arc<OwnedFd>]) {
        self.sent.extend_from_slice(descriptors);
        self.make_room(descriptors.len());
        if descriptors.is_empty() {
            return;
        }
        let length = DATA + descriptors.len() * size_of::<RawFd>();
        let (header, numbers) = self.bytes_mut().split_at_mut(DATA);
        header[..LEVEL].copy_from_slice(&length.to_ne_bytes());
        header[LEVEL..KIND].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
        header[KIND..].copy_from_slice(&libc::SCM_RIGHTS.to_ne_bytes());
        for (number, descriptor) in numbers.chunks_exact_mut(size_of::<RawFd>()).zip(descriptors) {
            number.copy_from_slice(&descriptor.as_raw_fd().to_ne_bytes());
        }
    }

    /// Owns the descriptors that the kernel put into the control data.
    ///
    /// All of the room is looked at, not as much as the header says: where the kernel received in several steps, it says how
    /// much the last of them brought. What it did not write is zero, which no header begins with.
    fn own_received(&mut self) {
        let mut received = std::mem::take(&mut self.received);
        let mut left: &[u8] = self.bytes_mut();
        while let Some((header, _)) = left.split_at_checked(DATA) {
            let length = usize::from_ne_bytes(header[..LEVEL].try_into().expect("as long as that"));
            if length < DATA || length > left.len() {
                break;
            }
            let word = |from: usize| i32::from_ne_bytes(header[from..from + 4].try_into().expect("four bytes"));
            let is_pidfd = word(KIND) == SCM_PIDFD;
            if word(LEVEL) == libc::SOL_SOCKET && (word(KIND) == libc::SCM_RIGHTS || is_pidfd) {
                for number in left[DATA..length].chunks_exact(size_of::<RawFd>()) {
                    let number = RawFd::from_ne_bytes(number.try_into().expect("four bytes"));
                    // SAFETY: the kernel made this descriptor for us, and each message is looked at once.
                    let descriptor = (number >= 0).then(|| unsafe { OwnedFd::from_raw_fd(number) });
                    // What nobody asked for is closed.
                    received.extend(descriptor.filter(|_| !is_pidfd));
                }
            }
            left = &left[length.next_multiple_of(size_of::<usize>()).min(left.len())..];
        }
        self.received = received;
        self.control.clear();
    }
}

/// What is received in a parcel is the process's from here on.
#[cold]
pub(crate) fn own_received<B>(parcel: &mut Parcel<B>) {
    parcel.parameters().message.own_received();
}

/// The message that was to be received in a parcel, if that is what it was for.
pub(crate) fn take_message<B>(mut parcel: Parcel<B>, result: i32) -> Option<Message<B>> {
    let parameters = parcel.parameters();
    let header = &mut parameters.message;
    if !header.is_receive {
        return None;
    }
    let is_there = result >= 0;
    let length = if is_there { header.header.msg_namelen } else { 0 };
    Some(Message {
        bufs: std::mem::take(&mut parameters.leases),
        several: std::mem::take(&mut parameters.several),
        from: SocketAddress::received(&parameters.address, length),
        flags: if is_there { header.header.msg_flags & !libc::MSG_CMSG_CLOEXEC } else { 0 },
        descriptors: std::mem::take(&mut header.received),
    })
}

impl<B> Parameters<B> {
    /// Makes what is in the vectors a message to be sent.
    pub(crate) fn send_message(&mut self, operation: &mut Operation, message: &SendMessage<'_>) {
        self.message.put_descriptors(message.descriptors);
        let length = message.to.map_or(0, |to| {
            self.address = to.storage;
            to.length
        });
        self.set_header(operation, length);
    }

    /// Makes the vectors those of a message to be received, with at most this many descriptors.
    pub(crate) fn receive_message(&mut self, operation: &mut Operation, descriptors: usize) {
        self.message.is_receive = true;
        self.message.make_room(descriptors.min(MOST_DESCRIPTORS));
        // SAFETY: a plain C structure, for which all zeroes is a value. An address that is cut short shows nothing of another.
        self.address = unsafe { std::mem::zeroed() };
        self.set_header(operation, size_of_val(&self.address) as u32);
    }

    #[allow(trivial_numeric_casts)] // As above.
    fn set_header(&mut self, operation: &mut Operation, name_length: u32) {
        let header = &mut self.message.header;
        header.msg_name = if name_length == 0 { ptr::null_mut() } else { (&raw mut self.address).cast() };
        header.msg_namelen = name_length;
        header.msg_iov = self.iovecs.as_mut_ptr();
        header.msg_iovlen = self.iovecs.len() as _;
        header.msg_flags = 0;
        // The kernel follows these, too.
        let _ = (address_of(&raw const self.address), address_of(self.iovecs.as_ptr()));
        operation.address = address_of(&raw const *header);
        operation.length = 1;
    }
}

/// Without `MSG_CMSG_COMPAT`, which has the kernel write control data in another form, and with `MSG_CMSG_CLOEXEC`.
pub(crate) fn receive_flags(flags: i32) -> u32 {
    (flags & i32::MAX | libc::MSG_CMSG_CLOEXEC) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_control_data_is_that_of_c() {
        // SAFETY: only compute sizes.
        let (length, data) = unsafe { (libc::CMSG_LEN(12), libc::CMSG_LEN(0)) };
        assert_eq!((length as usize, data as usize), (DATA + 12, DATA));
        assert_eq!(std::mem::offset_of!(libc::cmsghdr, cmsg_level), LEVEL);
        assert_eq!(std::mem::offset_of!(libc::cmsghdr, cmsg_type), KIND);
    }

    /// A control message as the kernel writes it, padded.
    fn control(kind: i32, data: &[i32]) -> Vec<u8> {
        let mut bytes = (DATA + 4 * data.len()).to_ne_bytes().to_vec();
        for word in [&[libc::SOL_SOCKET, kind], data].concat() {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(size_of::<usize>()), 0);
        bytes
    }

    #[test]
    fn descriptors_are_found_wherever_they_are() {
        let new = || {
            // SAFETY: makes a descriptor.
            let number = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
            assert!(number >= 0);
            number
        };
        let (first, second, third, pidfd) = (new(), new(), new(), new());
        let parts = [
            control(libc::SCM_CREDENTIALS, &[1, 2, 3]),
            control(libc::SCM_RIGHTS, &[first]),
            control(SCM_PIDFD, &[pidfd]),
            control(libc::SCM_RIGHTS, &[second, third]),
        ];
        let bytes = parts.concat();
        let mut header = Header::empty();
        header.make_room(bytes.len());
        header.bytes_mut()[..bytes.len()].copy_from_slice(&bytes);
        header.own_received();
        assert_eq!(header.received.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>(), [first, second, third]);
        // SAFETY: asks about a number.
        assert_eq!(unsafe { libc::fcntl(pidfd, libc::F_GETFD) }, -1, "nobody can take this one");
        header.own_received();
        assert_eq!(header.received.len(), 3, "they are owned once");
    }

    #[test]
    fn nonsense_is_no_descriptor() {
        for length in [0, DATA - 1, 25, usize::MAX] {
            let mut header = Header::empty();
            header.make_room(2);
            let mut bytes = control(libc::SCM_RIGHTS, &[0, 0]);
            bytes[..LEVEL].copy_from_slice(&length.to_ne_bytes());
            header.bytes_mut().copy_from_slice(&bytes);
            header.own_received();
            assert!(header.received.is_empty(), "{length}");
        }
    }
}
