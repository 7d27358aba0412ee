//! R4: a ticket is made by starting an operation.
use sysuring::{Operations as _, Ring, Ticket};

pub fn case(ring: &mut Ring) -> Ticket {
    #[cfg(bad)]
    let ticket = Ticket(0); //~ E0423
    #[cfg(not(bad))]
    let ticket = ring.nop().unwrap();
    let _ = ring.cancel(ticket);
    ticket
}
