//! What the running kernel is known to do wrong, or not to have.

use std::sync::OnceLock;

/// The version of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kernel(u32, u32);

impl Kernel {
    pub(super) fn running() -> Self {
        static RUNNING: OnceLock<Kernel> = OnceLock::new();
        *RUNNING.get_or_init(|| {
            let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
            // What can't be told is taken for the oldest that has passthrough: nothing is used that came later.
            Self::parse(&release).unwrap_or(Self(5, 19))
        })
    }

    fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse);
        Some(Self(numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    #[cfg(test)]
    pub(super) const fn of(major: u32, minor: u32) -> Self {
        Self(major, minor)
    }

    /// Nodes of namespaces as character devices.
    pub(super) fn has_nodes(self) -> bool {
        self >= Self(5, 13)
    }

    /// Registered buffers for commands that are passed through.
    pub(super) fn has_fixed_commands(self) -> bool {
        self >= Self(6, 1)
    }

    /// Polling for commands that are passed through, without a fault. Linux 6.1 has it, and takes the address of a function for that of
    /// a bio when a ring goes with such commands in flight (seen in `bio_poll`, called by `io_ring_exit_work`); 6.12 does not.
    pub(super) fn polls(self) -> bool {
        self >= Self(6, 12)
    }

    /// Commands that users without rights may pass through, where they may open the node.
    pub(super) fn lets_users_in(self) -> bool {
        self >= Self(6, 2)
    }

    /// A buffer of its own for metadata. Linux 6.18.15 dereferences a null pointer in `bio_integrity_map_user`, 6.12 and 7.3 do not;
    /// nothing is known of those between.
    pub(super) fn maps_metadata(self) -> bool {
        !(Self(6, 13)..Self(7, 3)).contains(&self)
    }
}

impl std::fmt::Display for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Linux {}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        assert_eq!(Kernel::parse("6.18.15+deb13-cloud-amd64\n"), Some(Kernel(6, 18)));
        assert_eq!(Kernel::parse("7.3-rc1"), Some(Kernel(7, 3)));
        assert_eq!(Kernel::parse("plan 9"), None);
        assert!(!Kernel(5, 10).has_nodes() && Kernel(5, 19).has_nodes());
        assert!(!Kernel(6, 0).has_fixed_commands() && Kernel(6, 1).has_fixed_commands());
        assert!(!Kernel(6, 1).polls() && Kernel(6, 12).polls());
        assert!(Kernel(6, 12).maps_metadata() && !Kernel(6, 18).maps_metadata() && Kernel(7, 3).maps_metadata());
    }
}
