//! The addresses of sockets, as the kernel takes them.

use std::ffi::OsStr;
use std::io;
use std::mem::offset_of;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::slice;

use crate::error::{Error, ErrorKind, Result};

/// The address of a socket: an IP address and a port, or a path.
///
/// ```
/// use std::net::SocketAddr;
/// use sysuring::SocketAddress;
///
/// let address = SocketAddress::from(SocketAddr::from(([127, 0, 0, 1], 80)));
/// assert_eq!(address.to_string(), "127.0.0.1:80");
/// ```
#[derive(Clone, Copy)]
pub struct SocketAddress {
    pub(crate) storage: libc::sockaddr_storage,
    pub(crate) length: u32,
}

impl SocketAddress {
    fn empty() -> Self {
        // SAFETY: a plain C structure, for which all zeroes is a value.
        Self { storage: unsafe { std::mem::zeroed() }, length: 0 }
    }

    /// Puts one of the structures that fit into the storage there.
    fn of<T>(address: T) -> Self {
        const { assert!(size_of::<T>() <= size_of::<libc::sockaddr_storage>()) };
        let mut this = Self::empty();
        // SAFETY: `storage` is at least as large, and aligned for every address.
        unsafe { (&raw mut this.storage).cast::<T>().write(address) };
        this.length = size_of::<T>() as u32;
        this
    }

    /// What the kernel wrote into `storage`, of which it says that it is `length` bytes long; `None` for no address.
    pub(crate) fn received(storage: &libc::sockaddr_storage, length: u32) -> Option<Self> {
        // The kernel may say how long an address is that did not fit.
        let length = length.min(size_of_val(storage) as u32);
        let has_family = length as usize >= size_of::<libc::sa_family_t>();
        has_family.then_some(Self { storage: *storage, length })
    }

    /// A Unix socket's path.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for a path that is empty, has a zero byte, or is longer than 107 bytes.
    pub fn unix(path: &Path) -> Result<Self> {
        // SAFETY: a plain C structure, for which all zeroes is a value.
        let mut address = unsafe { std::mem::zeroed::<libc::sockaddr_un>() };
        let bytes = path.as_os_str().as_bytes();
        if bytes.is_empty() || bytes.contains(&0) || bytes.len() >= address.sun_path.len() {
            let most = address.sun_path.len() - 1;
            let message = format!("{path:?} is no path of a socket; use 1 to {most} bytes");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (to, from) in address.sun_path.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        Ok(Self::of(address))
    }

    /// The path of a Unix socket, where it has one.
    ///
    /// ```
    /// use std::path::Path;
    /// use sysuring::SocketAddress;
    ///
    /// # fn main() -> sysuring::Result<()> {
    /// let path = Path::new("/run/some.socket");
    /// assert_eq!(SocketAddress::unix(path)?.to_path(), Some(path));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn to_path(&self) -> Option<&Path> {
        if i32::from(self.storage.ss_family) != libc::AF_UNIX {
            return None;
        }
        // SAFETY: the storage has at least as many bytes, all of which are initialised, and is borrowed as `self` is.
        let bytes = unsafe { slice::from_raw_parts((&raw const self.storage).cast::<u8>(), self.length as usize) };
        let path = bytes.get(offset_of!(libc::sockaddr_un, sun_path)..)?;
        let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
        // Without a name, or with one that is no path: it begins with a zero.
        (end > 0).then(|| Path::new(OsStr::from_bytes(&path[..end])))
    }

    /// The IP address and port, where it is one.
    #[must_use]
    pub fn to_ip(&self) -> Option<SocketAddr> {
        let is_as_long_as = |bytes: usize| self.length as usize >= bytes;
        match i32::from(self.storage.ss_family) {
            libc::AF_INET if is_as_long_as(size_of::<libc::sockaddr_in>()) => {
                // SAFETY: of this family the storage is a `sockaddr_in`, for which every pattern of bits is a value.
                let address = unsafe { (&raw const self.storage).cast::<libc::sockaddr_in>().read() };
                let ip = u32::from_be(address.sin_addr.s_addr);
                Some(SocketAddr::from((std::net::Ipv4Addr::from(ip), u16::from_be(address.sin_port))))
            }
            libc::AF_INET6 if is_as_long_as(size_of::<libc::sockaddr_in6>()) => {
                // SAFETY: of this family the storage is a `sockaddr_in6`, for which every pattern of bits is a value.
                let address = unsafe { (&raw const self.storage).cast::<libc::sockaddr_in6>().read() };
                Some(SocketAddr::V6(std::net::SocketAddrV6::new(
                    address.sin6_addr.s6_addr.into(),
                    u16::from_be(address.sin6_port),
                    address.sin6_flowinfo,
                    address.sin6_scope_id,
                )))
            }
            _ => None,
        }
    }
}

impl From<SocketAddr> for SocketAddress {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => {
                // SAFETY: a plain C structure, for which all zeroes is a value.
                let mut address = unsafe { std::mem::zeroed::<libc::sockaddr_in>() };
                address.sin_family = libc::AF_INET as libc::sa_family_t;
                address.sin_port = v4.port().to_be();
                address.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
                Self::of(address)
            }
            SocketAddr::V6(v6) => {
                // SAFETY: a plain C structure, for which all zeroes is a value.
                let mut address = unsafe { std::mem::zeroed::<libc::sockaddr_in6>() };
                address.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                address.sin6_port = v6.port().to_be();
                address.sin6_addr.s6_addr = v6.ip().octets();
                address.sin6_flowinfo = v6.flowinfo();
                address.sin6_scope_id = v6.scope_id();
                Self::of(address)
            }
        }
    }
}

impl TryFrom<&Path> for SocketAddress {
    type Error = io::Error;

    fn try_from(path: &Path) -> io::Result<Self> {
        Self::unix(path).map_err(Into::into)
    }
}

impl std::fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.to_ip(), self.to_path()) {
            (Some(address), _) => address.fmt(f),
            (None, Some(path)) => path.display().fmt(f),
            (None, None) => write!(f, "an address of family {}", self.storage.ss_family),
        }
    }
}

impl std::fmt::Debug for SocketAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SocketAddress({self})")
    }
}
