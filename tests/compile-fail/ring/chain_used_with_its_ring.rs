//! R6: nothing comes between the entries of a chain.
use sysuring::{Operations as _, Rejected, Ring};

pub fn case(ring: &mut Ring) {
    #[cfg(bad)]
    let _ = ring.chain(|chain| -> Result<(), Rejected<()>> {
        //~^ E0500 E0501
        chain.nop()?;
        ring.nop()?;
        Ok(())
    });
    #[cfg(not(bad))]
    let _ = ring.chain(|chain| -> Result<(), Rejected<()>> {
        chain.nop()?;
        chain.nop()?;
        Ok(())
    });
}
