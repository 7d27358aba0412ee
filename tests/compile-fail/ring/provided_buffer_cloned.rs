//! R1: a buffer that the kernel picked has one owner, which gives it back.
use sysuring::ProvidedBuf;

pub fn case(buf: &ProvidedBuf) {
    println!("{}", buf[0]);
    #[cfg(bad)]
    let _: ProvidedBuf = buf.clone(); //~ E0308
}
