//! R6: a chain is published when its closure returns: nothing is added to it afterwards.
use sysuring::{Chain, Operations as _, Rejected, Ring};

pub fn case(ring: &mut Ring) {
    #[cfg(bad)]
    let mut kept: Option<&mut Chain<'_>> = None;
    let _ = ring.chain(|chain| -> Result<(), Rejected<()>> {
        chain.nop()?;
        #[cfg(bad)]
        kept.replace(chain); //~ E0521
        Ok(())
    });
    #[cfg(bad)]
    drop(kept);
    let _: Option<Chain<'_>> = None;
}
