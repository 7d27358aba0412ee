//! The bindings against the header's own functions, a real ring and libraries made for the purpose.

mod library;
mod ports;
mod ring;
