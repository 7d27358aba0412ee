//! R1: a buffer that was given back to the kernel is the kernel's.
use sysuring::ProvidedBuf;

pub fn case(buf: ProvidedBuf) {
    println!("{}", buf[0]);
    drop(buf);
    #[cfg(bad)]
    println!("{}", buf[0]); //~ E0382
}
