//! The bindings against the header's own functions, a real ring and libraries made for the purpose.

mod c;
mod languages;
mod library;
mod ports;
mod quirks;
mod ring;
