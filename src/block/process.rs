//! Which process something belongs to: threads, and locks that they may hold, are not in the child of a `fork`.

#[cfg(uring)]
use crate::fork::ForkMark;

/// The process that made something.
pub(super) struct Process {
    /// Asking it costs no system call. `None` where there is no page for it.
    #[cfg(uring)]
    mark: Option<ForkMark>,
    id: u32,
}

impl Process {
    pub(super) fn current() -> Self {
        Self {
            #[cfg(uring)]
            mark: ForkMark::current().ok(),
            id: std::process::id(),
        }
    }

    /// False in a child of the process.
    pub(super) fn is_this(&self) -> bool {
        #[cfg(uring)]
        if let Some(mark) = self.mark {
            return mark.is_alive();
        }
        self.id == std::process::id()
    }
}
