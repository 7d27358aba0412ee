//! A registered file has one owner: its place is freed when that is dropped.
use sysuring::FixedFile;

pub fn case(file: &FixedFile) {
    println!("{}", file.index());
    #[cfg(bad)]
    let _: FixedFile = file.clone(); //~ E0308
}
