//! Calls of liburing's exported functions through addresses found at run time.

use std::ffi::{CStr, c_void};
use std::marker::PhantomData;
use std::mem;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::library::{self, LoadError};

/// An exported function of type `F`, found at its first call.
pub(crate) struct Symbol<F> {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
    function: PhantomData<F>,
}

impl<F: Copy> Symbol<F> {
    /// # Safety
    ///
    /// `F` must be a pointer to a function of the type that liburing declares for `name`.
    pub(crate) const unsafe fn new(name: &'static CStr) -> Self {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        Self { name, address: AtomicPtr::new(ptr::null_mut()), function: PhantomData }
    }

    /// # Panics
    ///
    /// Where there is no library, or none with this function.
    #[inline]
    pub(crate) fn get(&self) -> F {
        match self.known() {
            Some(function) => function,
            None => self.find_or_panic(),
        }
    }

    #[cold]
    fn find_or_panic(&self) -> F {
        self.find().unwrap_or_else(|error| panic!("{error}"))
    }

    #[inline]
    pub(crate) fn known(&self) -> Option<F> {
        // Acquire: what the thread that found the address saw of the library is seen here too.
        let address = NonNull::new(self.address.load(Ordering::Acquire))?;
        // SAFETY: the same size, checked in `new`; the type, promised there.
        Some(unsafe { mem::transmute_copy(&address) })
    }

    #[cold]
    pub(crate) fn find(&self) -> Result<F, LoadError> {
        let address = library::function(self.name)?;
        self.address.store(address.as_ptr(), Ordering::Release);
        // SAFETY: as in `known`.
        Ok(unsafe { mem::transmute_copy(&address) })
    }
}

/// Makes of bindgen's declaration a function of the same name and type, called through a pointer.
///
/// `trampoline` exports it to C besides, for the compiled inline functions that call it.
macro_rules! library_function {
    (
        trampoline $exported:literal;
        $(#[$attribute:meta])*
        pub fn $name:ident( $($arg:ident : $ty:ty),* $(,)? ) -> $ret:ty;
    ) => {
        library_function! {
            $(#[$attribute])*
            pub fn $name( $($arg: $ty),* ) -> $ret;
        }

        const _: () = {
            #[unsafe(export_name = $exported)]
            unsafe extern "C" fn trampoline( $($arg: $ty),* ) -> $ret {
                library_function!(@symbol $name, unsafe extern "C" fn( $($ty),* ) -> $ret);
                match SYMBOL.known().or_else(|| SYMBOL.find().ok()) {
                    // SAFETY: the caller owes what C's function asks for.
                    Some(function) => unsafe { function( $($arg),* ) },
                    // A panic cannot pass through C.
                    None => -libc::ENOSYS,
                }
            }
        };
    };
    (
        $(#[$attribute:meta])*
        pub fn $name:ident( $($arg:ident : $ty:ty),* $(,)? ) $(-> $ret:ty)?;
    ) => {
        $(#[$attribute])*
        #[inline]
        pub unsafe fn $name( $($arg: $ty),* ) $(-> $ret)? {
            library_function!(@symbol $name, unsafe extern "C" fn( $($ty),* ) $(-> $ret)?);
            // SAFETY: the caller owes what C's function asks for.
            unsafe { SYMBOL.get()( $($arg),* ) }
        }
    };
    (@symbol $name:ident, $function:ty) => {
        static SYMBOL: $crate::dlopen::Symbol<$function> = {
            let name = concat!(stringify!($name), "\0").as_bytes();
            let Ok(name) = ::std::ffi::CStr::from_bytes_with_nul(name) else { unreachable!() };
            // SAFETY: bindgen read name and type in liburing's header.
            unsafe { $crate::dlopen::Symbol::new(name) }
        };
    };
}
