//! The health of a controller.

use crate::block::nvme::bytes::{u16_at, u32_at, u128_at};

/// Bytes of the log page, and its number.
pub(super) const SMART_BYTES: usize = 512;
pub(super) const SMART: u32 = 2;

/// The SMART and health information of a controller (log page 2): since it was made, over all its namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SmartLog {
    /// What needs attention: 1 spare blocks, 2 temperature, 4 reliability, 8 read only, 16 volatile memory backup, 32 persistent
    /// memory; 0 when all is well.
    pub critical_warning: u8,
    /// Kelvin.
    pub temperature: u16,
    /// Percent of the spare blocks that are left.
    pub available_spare: u8,
    /// Percent under which that is a warning.
    pub spare_threshold: u8,
    /// Percent of the expected life that is used; may be over 100.
    pub percentage_used: u8,
    /// Thousands of 512 bytes that hosts read, rounded up.
    pub data_units_read: u128,
    /// Thousands of 512 bytes that hosts wrote, rounded up.
    pub data_units_written: u128,
    /// Read commands.
    pub host_reads: u128,
    /// Write commands.
    pub host_writes: u128,
    /// Minutes in which commands were under way.
    pub busy_minutes: u128,
    /// How often it was switched on.
    pub power_cycles: u128,
    /// Hours that it was on.
    pub power_on_hours: u128,
    /// How often the power went without notice.
    pub unsafe_shutdowns: u128,
    /// Errors of the medium that could not be corrected.
    pub media_errors: u128,
    /// Entries of the error log so far.
    pub error_log_entries: u128,
    /// Minutes over the temperature that is a warning.
    pub warning_temperature_minutes: u32,
    /// Minutes over the critical temperature.
    pub critical_temperature_minutes: u32,
    /// Kelvin, of each sensor that there is.
    pub sensors: Vec<u16>,
}

impl SmartLog {
    pub(super) fn parse(bytes: &[u8; SMART_BYTES]) -> Self {
        Self {
            critical_warning: bytes[0],
            temperature: u16_at(bytes, 1),
            available_spare: bytes[3],
            spare_threshold: bytes[4],
            percentage_used: bytes[5],
            data_units_read: u128_at(bytes, 32),
            data_units_written: u128_at(bytes, 48),
            host_reads: u128_at(bytes, 64),
            host_writes: u128_at(bytes, 80),
            busy_minutes: u128_at(bytes, 96),
            power_cycles: u128_at(bytes, 112),
            power_on_hours: u128_at(bytes, 128),
            unsafe_shutdowns: u128_at(bytes, 144),
            media_errors: u128_at(bytes, 160),
            error_log_entries: u128_at(bytes, 176),
            warning_temperature_minutes: u32_at(bytes, 192),
            critical_temperature_minutes: u32_at(bytes, 196),
            sensors: (0..8).map(|index| u16_at(bytes, 200 + 2 * index)).filter(|kelvin| *kelvin != 0).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_read() {
        let mut bytes = [0; SMART_BYTES];
        bytes[..6].copy_from_slice(&[2, 0x43, 1, 99, 10, 3]);
        bytes[32] = 5;
        bytes[47] = 1;
        bytes[192] = 7;
        bytes[202] = 0x2c;
        let log = SmartLog::parse(&bytes);
        assert_eq!((log.critical_warning, log.temperature, log.available_spare), (2, 323, 99));
        assert_eq!(log.data_units_read, 5 | 1 << 120);
        assert_eq!((log.warning_temperature_minutes, log.sensors), (7, vec![0x2c]));
    }
}
