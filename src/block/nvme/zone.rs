//! Zones of a zoned namespace.

use crate::block::nvme::bytes::u64_at;

/// Bytes of a report's head, and of each zone after it.
pub(super) const ZONE_BYTES: usize = 64;

/// A zone: blocks that are written one after the other, from its start on. All numbers are of logical blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Zone {
    /// Its first block.
    pub start: u64,
    /// Blocks that can be written, from the first one on.
    pub capacity: u64,
    /// The next block to be written; of no meaning for a zone that is full, read only or offline.
    pub write_pointer: u64,
    /// What can be done with it.
    pub state: ZoneState,
}

/// What can be done with a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ZoneState {
    /// Nothing is written in it.
    Empty,
    /// It was opened by a write.
    ImplicitlyOpen,
    /// It was opened by [`ZoneAction::Open`].
    ExplicitlyOpen,
    /// Some of it is written, and it is not open.
    Closed,
    /// It is only read now.
    ReadOnly,
    /// All of it is written, or it was finished.
    Full,
    /// Nothing can be done with it any more.
    Offline,
    /// A state that the specification has no name for.
    Reserved(u8),
}

impl std::fmt::Display for ZoneState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Empty => "empty",
            Self::ImplicitlyOpen => "implicitly open",
            Self::ExplicitlyOpen => "explicitly open",
            Self::Closed => "closed",
            Self::ReadOnly => "read only",
            Self::Full => "full",
            Self::Offline => "offline",
            Self::Reserved(_) => "unknown",
        })
    }
}

/// What is to be done with zones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ZoneAction {
    /// Ends that it is open, as far as the controller's means go.
    Close,
    /// Makes it full: what was not written can't be any more.
    Finish,
    /// Opens it for writes.
    Open,
    /// Makes it empty: what is in it is lost.
    Reset,
    /// Gives up a zone that is read only: what is in it is lost.
    Offline,
}

impl ZoneAction {
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Close => 1,
            Self::Finish => 2,
            Self::Open => 3,
            Self::Reset => 4,
            Self::Offline => 5,
        }
    }
}

impl Zone {
    fn parse(bytes: &[u8]) -> Self {
        Self {
            start: u64_at(bytes, 16),
            capacity: u64_at(bytes, 8),
            write_pointer: u64_at(bytes, 24),
            state: match bytes[1] >> 4 {
                1 => ZoneState::Empty,
                2 => ZoneState::ImplicitlyOpen,
                3 => ZoneState::ExplicitlyOpen,
                4 => ZoneState::Closed,
                13 => ZoneState::ReadOnly,
                14 => ZoneState::Full,
                15 => ZoneState::Offline,
                other => ZoneState::Reserved(other),
            },
        }
    }
}

/// The zones of a report: as many as its head says, and as fit.
pub(super) fn parse_report(report: &[u8]) -> Vec<Zone> {
    let count = usize::try_from(u64_at(report, 0)).unwrap_or(usize::MAX);
    report[ZONE_BYTES..].chunks_exact(ZONE_BYTES).take(count).map(Zone::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let mut report = [0; 3 * ZONE_BYTES];
        report[0] = 1;
        report[ZONE_BYTES] = 2;
        report[ZONE_BYTES + 1] = 4 << 4;
        report[ZONE_BYTES + 9] = 1;
        report[ZONE_BYTES + 16] = 0x40;
        report[ZONE_BYTES + 24] = 0x41;
        let zone = Zone { start: 0x40, capacity: 0x100, write_pointer: 0x41, state: ZoneState::Closed };
        assert_eq!(parse_report(&report), [zone]);
        // More than fit, as a report of a part says.
        report[0] = 200;
        assert_eq!(parse_report(&report).len(), 2);
        assert_eq!(parse_report(&report)[1].state, ZoneState::Reserved(0));
    }
}
