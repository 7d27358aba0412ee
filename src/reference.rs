//! What the documentation says of a function of liburing.

/// Since when liburing and the kernel have a function, and where its manual page is.
macro_rules! reference {
    ($function:ident, $since:literal, $linux:literal) => {
        concat!(
            "Since liburing ",
            $since,
            ", Linux ",
            $linux,
            "; see [",
            stringify!($function),
            "(3)](https://man7.org/linux/man-pages/man3/",
            stringify!($function),
            ".3.html)."
        )
    };
}
