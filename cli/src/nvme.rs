//! `sysuring nvme`: commands that are passed through to a namespace.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Subcommand, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};
use sysuring::block::nvme::{NamespaceInfo, NvmeDevice, SmartLog, Zone, ZoneAction};
use sysuring::block::{BlockDevice, Options};

use crate::plain::failure;

/// Most bytes that are read or written at once.
const PIECE: usize = 1 << 20;

/// Pass NVMe commands through to a namespace
///
/// DEVICE is a namespace's node (/dev/ng0n1), its block device (/dev/nvme0n1), or a link to one of them. Blocks are the namespace's own
/// (logical blocks).
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the controller and the namespace say of themselves
    Identify(Show),
    /// Show the health of the controller
    Smart(Show),
    Read(ReadArguments),
    Write(WriteArguments),
    Zones(ZonesArguments),
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The namespace
    #[arg(value_name = "DEVICE")]
    device: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Read blocks: to a file, or to standard output, where a terminal gets them in hexadecimal digits
#[derive(Debug, clap::Args)]
struct ReadArguments {
    /// The namespace
    #[arg(value_name = "DEVICE")]
    device: PathBuf,
    /// The first block
    #[arg(long, value_name = "BLOCK", default_value_t = 0)]
    start: u64,
    /// How many blocks
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    blocks: u64,
    /// Where to: a file that does not exist
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print JSON, with the bytes in hexadecimal digits
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

/// Write a file, or standard input, to blocks, and flush
///
/// What is on the blocks is lost: it asks before, unless told not to with --yes.
#[derive(Debug, clap::Args)]
struct WriteArguments {
    /// The namespace
    #[arg(value_name = "DEVICE")]
    device: PathBuf,
    /// The first block
    #[arg(long, value_name = "BLOCK")]
    start: u64,
    /// What to write, a whole number of blocks long; - for standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Fill the last block up with zeroes
    #[arg(long)]
    pad: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Show the zones of a zoned namespace, or do something with them
///
/// Reset, finish and offline lose data, or room for some: it asks before, unless told not to with --yes.
#[derive(Debug, clap::Args)]
struct ZonesArguments {
    /// The namespace
    #[arg(value_name = "DEVICE")]
    device: PathBuf,
    /// A block of the first zone that is shown
    #[arg(long, value_name = "BLOCK", default_value_t = 0)]
    start: u64,
    /// How many zones are shown, at most
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    most: usize,
    /// What to do before, with --zone or --all
    #[arg(long, value_enum)]
    action: Option<Action>,
    /// The first block of the zone that it is done with
    #[arg(long, value_name = "BLOCK", requires = "action", conflicts_with = "all")]
    zone: Option<u64>,
    /// Do it with all zones
    #[arg(long, requires = "action")]
    all: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Open it for writes
    Open,
    /// End that it is open
    Close,
    /// Make it full
    Finish,
    /// Make it empty
    Reset,
    /// Give it up
    Offline,
}

impl Action {
    fn loses_something(self) -> bool {
        matches!(self, Self::Finish | Self::Reset | Self::Offline)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Close => "close",
            Self::Finish => "finish",
            Self::Reset => "reset",
            Self::Offline => "offline",
        }
    }
}

impl From<Action> for ZoneAction {
    fn from(action: Action) -> Self {
        match action {
            Action::Open => Self::Open,
            Action::Close => Self::Close,
            Action::Finish => Self::Finish,
            Action::Reset => Self::Reset,
            Action::Offline => Self::Offline,
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::Identify(show) => identify(show),
        Command::Smart(show) => smart(show),
        Command::Read(arguments) => read(arguments),
        Command::Write(arguments) => write(arguments),
        Command::Zones(arguments) => zones(arguments),
    }
}

/// Opens a namespace with blocks of its own size.
fn open(path: &Path, writes: bool) -> Result<NvmeDevice> {
    // To look at a namespace harms nobody, whoever has it.
    let options = Options::new().read_only(!writes).exclusive(writes).whole_blocks(true);
    // Larger than any logical block that a device can have.
    let device = NvmeDevice::open(path, &options.clone().block_size(65536))?;
    let block_size = u32::try_from(device.lba_size())?;
    drop(device);
    Ok(NvmeDevice::open(path, &options.block_size(block_size))?)
}

fn print_json(value: &Value) -> Result<()> {
    crate::print(serde_json::to_string_pretty(value).context("write JSON")?)
}

/// Two columns: what, and how much.
fn table_of(rows: impl IntoIterator<Item = (&'static str, String)>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    for (name, value) in rows {
        table.add_row([name.to_owned(), value]);
    }
    table
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes in the unit that leaves a number that is easy to read.
fn bytes(bytes: u128) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(units.len() as u32 - 1);
    match unit {
        0 => format!("{bytes} bytes"),
        _ => format!("{bytes} bytes ({:.1} {})", bytes as f64 / (1_u64 << (10 * unit)) as f64, units[unit as usize]),
    }
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

fn identify(show: &Show) -> Result<()> {
    let device = open(&show.device, false)?;
    let (controller, namespace) = (device.identify_controller()?, device.identify_namespace()?);
    let (major, minor, tertiary) = controller.version;
    let version = format!("{major}.{minor}.{tertiary}");
    let geometry = device.geometry();
    if show.json {
        let formats: Vec<Value> = namespace
            .formats
            .iter()
            .enumerate()
            .map(|(index, format)| {
                json!({
                    "index": index,
                    "data_bytes": format.data,
                    "metadata_bytes": format.metadata,
                    "relative_performance": format.relative_performance,
                    "in_use": index == namespace.format,
                })
            })
            .collect();
        return print_json(&json!({
            "controller": {
                "model": controller.model,
                "serial": controller.serial,
                "firmware": controller.firmware,
                "vendor": controller.vendor,
                "id": controller.id,
                "version": version,
                "subsystem": controller.subsystem,
                "volatile_write_cache": controller.has_write_cache,
                "compare": controller.can_compare,
                "discard": controller.can_discard,
                "write_zeroes": controller.can_write_zeroes,
                "verify": controller.can_verify,
            },
            "namespace": {
                "nsid": device.nsid(),
                "blocks": namespace.size,
                "capacity_blocks": namespace.capacity,
                "used_blocks": namespace.used,
                "block_bytes": device.lba_size(),
                "metadata_bytes": device.metadata_size(),
                "extended_blocks": namespace.is_extended,
                "protection_type": namespace.protection,
                "write_protected": namespace.is_write_protected,
                "max_transfer_bytes": geometry.max_transfer,
                "nguid": hex(&namespace.nguid),
                "eui64": hex(&namespace.eui64),
                "zone_blocks": device.zoned().map(|zoned| zoned.zone_size),
                "max_open_zones": device.zoned().and_then(|zoned| zoned.max_open),
                "max_active_zones": device.zoned().and_then(|zoned| zoned.max_active),
                "formats": formats,
            },
        }));
    }
    let mut rows = vec![
        ("model", controller.model),
        ("serial", controller.serial),
        ("firmware", controller.firmware),
        ("vendor", format!("{:#06x}", controller.vendor)),
        ("controller", controller.id.to_string()),
        ("version", version),
        ("subsystem", controller.subsystem),
        ("volatile write cache", yes_no(controller.has_write_cache)),
        ("compare", yes_no(controller.can_compare)),
        ("discard", yes_no(controller.can_discard)),
        ("write zeroes", yes_no(controller.can_write_zeroes)),
        ("verify", yes_no(controller.can_verify)),
        ("namespace", device.nsid().to_string()),
        ("size", bytes(u128::from(namespace.size) * device.lba_size() as u128)),
        ("blocks", format!("{} ({} in use)", namespace.size, namespace.used)),
        ("format", format_line(&namespace)),
        ("longest transfer", geometry.max_transfer.map_or_else(String::new, |longest| bytes(longest.into()))),
    ];
    if let Some(zoned) = device.zoned() {
        let limit = |limit: Option<u32>| limit.map_or("no limit".to_owned(), |limit| limit.to_string());
        rows.push(("zones of", format!("{} blocks", zoned.zone_size)));
        rows.push(("open zones", limit(zoned.max_open)));
        rows.push(("active zones", limit(zoned.max_active)));
    }
    crate::print(table_of(rows))?;
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["format", "data", "metadata", "speed", ""]);
    for (index, format) in namespace.formats.iter().enumerate() {
        let in_use = if index == namespace.format { "in use" } else { "" };
        let speed = ["best", "better", "good", "degraded"][usize::from(format.relative_performance & 3)];
        table.add_row([
            index.to_string(),
            format.data.to_string(),
            format.metadata.to_string(),
            speed.to_owned(),
            in_use.to_owned(),
        ]);
    }
    align_right(&mut table, 0..3);
    crate::print(format_args!("\n{table}"))
}

fn align_right(table: &mut Table, columns: std::ops::Range<usize>) {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn format_line(namespace: &NamespaceInfo) -> String {
    let format = namespace.lba_format();
    let metadata = match (format.metadata, namespace.is_extended) {
        (0, _) => "no metadata".to_owned(),
        (bytes, true) => format!("{bytes} bytes of metadata behind each block's data"),
        (bytes, false) => format!("{bytes} bytes of metadata"),
    };
    let protection = match namespace.protection {
        0 => String::new(),
        kind => format!(", protection information of type {kind}"),
    };
    format!("{} bytes, {metadata}{protection}", format.data)
}

fn smart(show: &Show) -> Result<()> {
    let log = open(&show.device, false)?.smart()?;
    if show.json {
        // JSON's numbers end where those of a double do: these are larger than any counter becomes.
        let number = |number: u128| u64::try_from(number).unwrap_or(u64::MAX);
        return print_json(&json!({
            "critical_warning": log.critical_warning,
            "temperature_kelvin": log.temperature,
            "available_spare_percent": log.available_spare,
            "spare_threshold_percent": log.spare_threshold,
            "percentage_used": log.percentage_used,
            "data_units_read": number(log.data_units_read),
            "data_units_written": number(log.data_units_written),
            "host_reads": number(log.host_reads),
            "host_writes": number(log.host_writes),
            "busy_minutes": number(log.busy_minutes),
            "power_cycles": number(log.power_cycles),
            "power_on_hours": number(log.power_on_hours),
            "unsafe_shutdowns": number(log.unsafe_shutdowns),
            "media_errors": number(log.media_errors),
            "error_log_entries": number(log.error_log_entries),
            "warning_temperature_minutes": log.warning_temperature_minutes,
            "critical_temperature_minutes": log.critical_temperature_minutes,
            "sensors_kelvin": log.sensors,
        }));
    }
    let celsius = |kelvin: u16| format!("{} °C", i32::from(kelvin) - 273);
    let units = |units: u128| bytes(units.saturating_mul(512_000));
    let mut rows = vec![
        ("critical warning", warnings(&log)),
        ("temperature", celsius(log.temperature)),
        ("spare blocks", format!("{} % (a warning under {} %)", log.available_spare, log.spare_threshold)),
        ("life used", format!("{} %", log.percentage_used)),
        ("read", units(log.data_units_read)),
        ("written", units(log.data_units_written)),
        ("read commands", log.host_reads.to_string()),
        ("write commands", log.host_writes.to_string()),
        ("busy", format!("{} min", log.busy_minutes)),
        ("power cycles", log.power_cycles.to_string()),
        ("power on", format!("{} h", log.power_on_hours)),
        ("unsafe shutdowns", log.unsafe_shutdowns.to_string()),
        ("media errors", log.media_errors.to_string()),
        ("error log entries", log.error_log_entries.to_string()),
        (
            "too warm",
            format!("{} min, critically {} min", log.warning_temperature_minutes, log.critical_temperature_minutes),
        ),
    ];
    if !log.sensors.is_empty() {
        let sensors: Vec<String> = log.sensors.iter().map(|kelvin| celsius(*kelvin)).collect();
        rows.push(("sensors", sensors.join(", ")));
    }
    crate::print(table_of(rows))
}

fn warnings(log: &SmartLog) -> String {
    let names = [
        "few spare blocks",
        "temperature",
        "not reliable",
        "read only",
        "volatile memory without backup",
        "persistent memory not reliable",
    ];
    let set: Vec<&str> = names
        .iter()
        .enumerate()
        .filter(|(bit, _)| log.critical_warning & 1 << bit != 0)
        .map(|(_, name)| *name)
        .collect();
    if log.critical_warning == 0 {
        "none".to_owned()
    } else {
        format!("{:#04x} {}", log.critical_warning, set.join(", "))
    }
}

fn read(arguments: &ReadArguments) -> Result<()> {
    let device = open(&arguments.device, false)?;
    let size = device.block_size();
    let end = arguments.start.checked_add(arguments.blocks).filter(|end| *end <= device.block_count());
    if end.is_none() {
        let (start, blocks, count) = (arguments.start, arguments.blocks, device.block_count());
        bail!("{blocks} blocks from block {start} on: {} has {count}", arguments.device.display());
    }
    let is_text = arguments.json || arguments.output.is_none() && io::stdout().is_terminal();
    let mut file = match &arguments.output {
        None => None,
        Some(path) => {
            Some(File::create_new(path).map_err(|error| failure(format_args!("create {}", path.display()), &error))?)
        }
    };
    let mut digits = String::new();
    let mut buffer = device.aligned_buffer(PIECE.max(size))?;
    let (mut block, mut left) = (arguments.start, arguments.blocks);
    while left > 0 {
        let blocks = left.min((buffer.len() / size) as u64);
        let piece = &mut buffer[..blocks as usize * size];
        device.read_run(block, piece)?;
        match &mut file {
            Some(file) => file.write_all(piece).map_err(|error| {
                failure(
                    format_args!("write {}", arguments.output.as_deref().unwrap_or(Path::new("-")).display()),
                    &error,
                )
            })?,
            None if arguments.json => digits.push_str(&hex(piece)),
            None if is_text => dump(piece, block * size as u64)?,
            None => io::stdout().lock().write_all(piece).map_err(crate::OutputError)?,
        }
        (block, left) = (block + blocks, left - blocks);
    }
    if arguments.json {
        return print_json(&json!({
            "start": arguments.start,
            "blocks": arguments.blocks,
            "block_bytes": size,
            "data": digits,
        }));
    }
    Ok(())
}

/// Lines of sixteen bytes, and what they are as text; lines that are like the one before are left out, as `hexdump` does.
fn dump(bytes: &[u8], offset: u64) -> Result<()> {
    let mut before: Option<&[u8]> = None;
    let mut is_left_out = false;
    for (index, line) in bytes.chunks(16).enumerate() {
        if before == Some(line) {
            if !is_left_out {
                crate::print("*")?;
            }
            is_left_out = true;
            continue;
        }
        (before, is_left_out) = (Some(line), false);
        let digits: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            line.iter().map(|byte| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '.' }).collect();
        crate::print(format_args!("{:012x}  {:<47}  {text}", offset + 16 * index as u64, digits.join(" ")))?;
    }
    Ok(())
}

fn write(arguments: &WriteArguments) -> Result<()> {
    let is_stdin = arguments.input.as_os_str() == "-";
    if is_stdin && !arguments.yes {
        bail!("what is written comes from standard input, so that nobody can be asked: say --yes");
    }
    let mut data = Vec::new();
    let name = arguments.input.display();
    let read = if is_stdin {
        io::stdin().lock().read_to_end(&mut data)
    } else {
        File::open(&arguments.input).and_then(|mut file| file.read_to_end(&mut data))
    };
    read.map_err(|error| failure(format_args!("read {name}"), &error))?;
    let device = open(&arguments.device, true)?;
    let size = device.block_size();
    if data.is_empty() {
        bail!("{name} is empty");
    }
    if data.len() % size != 0 && !arguments.pad {
        bail!(
            "{name} has {} bytes, which are no whole blocks of {size}; --pad fills the last one up with zeroes",
            data.len()
        );
    }
    data.resize(data.len().next_multiple_of(size), 0);
    let blocks = (data.len() / size) as u64;
    if arguments.start.checked_add(blocks).is_none_or(|end| end > device.block_count()) {
        let count = device.block_count();
        bail!("{blocks} blocks from block {} on: {} has {count}", arguments.start, arguments.device.display());
    }
    let what = format!("overwrite {blocks} blocks from block {} on of {}", arguments.start, arguments.device.display());
    confirm(&what, arguments.yes)?;
    for (index, piece) in data.chunks(PIECE / size * size).enumerate() {
        device.write_run(arguments.start + (index * (PIECE / size)) as u64, piece)?;
    }
    device.close()?;
    if arguments.json {
        return print_json(&json!({ "start": arguments.start, "blocks": blocks, "block_bytes": size }));
    }
    crate::print(format_args!("{blocks} blocks are written, and on stable storage"))
}

/// Asks whether to do `what`; an error where the answer is not yes.
fn confirm(what: &str, is_told: bool) -> Result<()> {
    if is_told {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        bail!("{what}? There is nobody to ask: say --yes");
    }
    let _ = write!(io::stderr(), "{what}? What is there is lost. [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|error| failure("read the answer", &error))?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was done");
    }
    Ok(())
}

fn zones(arguments: &ZonesArguments) -> Result<()> {
    let device = open(&arguments.device, arguments.action.is_some())?;
    if device.zoned().is_none() {
        bail!("{} has no zones", arguments.device.display());
    }
    if let Some(action) = arguments.action {
        if arguments.zone.is_none() && !arguments.all {
            bail!("{} which zone? Say --zone BLOCK, or --all", action.name());
        }
        if action.loses_something() {
            let which = arguments.zone.map_or("all zones".to_owned(), |zone| format!("the zone at block {zone}"));
            confirm(&format!("{} {which} of {}", action.name(), arguments.device.display()), arguments.yes)?;
        }
        device.manage_zone(arguments.zone, action.into())?;
    }
    let zones = device.zones(arguments.start, arguments.most)?;
    if arguments.json {
        let zone = |zone: &Zone| {
            json!({
                "start": zone.start,
                "capacity": zone.capacity,
                "write_pointer": zone.write_pointer,
                "state": zone.state.to_string(),
            })
        };
        return print_json(&Value::Array(zones.iter().map(zone).collect()));
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["start", "capacity", "written to", "state"]);
    for zone in &zones {
        table.add_row([
            zone.start.to_string(),
            zone.capacity.to_string(),
            zone.write_pointer.to_string(),
            zone.state.to_string(),
        ]);
    }
    align_right(&mut table, 0..3);
    crate::print(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_easy_to_read() {
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(64 << 20), "67108864 bytes (64.0 MiB)");
        assert!(bytes(u128::MAX).ends_with("PiB)"));
    }
}
