//! The names of the header: what they are in the bindings, and what in C.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "a header need not have all of them")]
pub(crate) enum Kind {
    Exported,
    Inline,
    Macro,
    Struct,
    Union,
    Enum,
    Typedef,
    Constant,
    Enumerator,
    Empty,
    Other,
}

pub(crate) struct Item {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) header: &'static str,
}

/// An integer constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) value: i128,
    pub(crate) size: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) size: usize,
    pub(crate) align: usize,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {} bytes", self.value, self.size)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, aligned to {}", self.size, self.align)
    }
}

/// In Rust; `None` for what the bindings lack.
#[allow(
    non_camel_case_types,
    non_upper_case_globals,
    dead_code,
    unused_imports,
    clippy::all,
    clippy::wildcard_imports,
    reason = "generated; names of C, of which those that the bindings have hide the stand-ins"
)]
pub(crate) mod here {
    use std::any::{type_name, type_name_of_val};

    use super::{Item, Kind, Layout, Value};

    struct Missing;

    trait Look {
        fn look(self) -> Option<Value>;
    }

    impl Look for Missing {
        fn look(self) -> Option<Value> {
            None
        }
    }

    macro_rules! look {
        ( $($integer:ty),* ) => {
            $( impl Look for $integer {
                fn look(self) -> Option<Value> {
                    Some(Value { value: self as i128, size: size_of::<$integer>() })
                }
            } )*
        };
    }

    look!(u8, i8, u16, i16, u32, i32, u64, i64);

    /// The path of a function; its address makes the linker look for it.
    fn function<F>(function: &F, address: *const ()) -> Option<&'static str> {
        std::hint::black_box(address);
        bound(type_name_of_val(function))
    }

    fn look_at_type<T>() -> Option<Layout> {
        bound(type_name::<T>()).map(|_| Layout { size: size_of::<T>(), align: align_of::<T>() })
    }

    fn bound(name: &'static str) -> Option<&'static str> {
        (!name.starts_with(module_path!())).then_some(name)
    }

    include!(concat!(env!("OUT_DIR"), "/items.rs"));
}

/// In C, in the order of `here`.
pub(crate) mod c {
    use super::{Kind, Layout, Value, here};

    #[repr(C)]
    struct Constant {
        bits: u64,
        size: u32,
        is_signed: u32,
    }

    #[repr(C)]
    struct Type {
        size: u64,
        align: u64,
    }

    unsafe extern "C" {
        static ledger_constants: [Constant; count(&[Kind::Constant, Kind::Enumerator])];
        static ledger_types: [Type; count(&[Kind::Struct, Kind::Union, Kind::Enum, Kind::Typedef])];
    }

    const fn count(kinds: &[Kind]) -> usize {
        let (mut item, mut found) = (0, 0);
        while item < here::ITEMS.len() {
            let mut kind = 0;
            while kind < kinds.len() {
                found += (here::ITEMS[item].kind as u8 == kinds[kind] as u8) as usize;
                kind += 1;
            }
            item += 1;
        }
        found
    }

    pub(crate) fn constants() -> impl Iterator<Item = Value> {
        // SAFETY: the build script defines the array from the same list, with one element more.
        unsafe { &ledger_constants }.iter().map(|constant| Value {
            value: if constant.is_signed != 0 { i128::from(constant.bits as i64) } else { i128::from(constant.bits) },
            size: constant.size as usize,
        })
    }

    pub(crate) fn types() -> impl Iterator<Item = Layout> {
        // SAFETY: as above.
        unsafe { &ledger_types }.iter().map(|ty| Layout { size: ty.size as usize, align: ty.align as usize })
    }
}
