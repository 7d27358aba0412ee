//! What an operation holds comes out once: the completion that carries it can't be doubled.
use sysuring::Done;

pub fn case(done: &Done) {
    println!("{:?}", done.ticket());
    #[cfg(bad)]
    let _: Done = done.clone(); //~ E0308
}
