//! `sysuring nvme`, where `SYSURING_TEST_PROGRAM` names the program.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use sysuring::block::BlockDevice;

use super::{has_nodes, nodes, open, options};
use crate::common::{self, pattern};

/// What the program says to these arguments, and to that input: its output, or its error.
fn run(arguments: &[&str], node: &Path, rest: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
    let program = std::env::var_os("SYSURING_TEST_PROGRAM").unwrap();
    let mut child = Command::new(program)
        .args(arguments)
        .arg(node)
        .args(rest)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may not read what it is given.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn the_program_shows_reads_and_writes() {
    if std::env::var_os("SYSURING_TEST_PROGRAM").is_none() {
        return common::skip("SYSURING_TEST_PROGRAM names no program");
    }
    let nodes = nodes();
    if nodes.is_empty() || !has_nodes() {
        return;
    }
    let directory = common::directory();
    for node in nodes {
        let Some(device) = open(&node, &options()) else { continue };
        let (size, zoned, nsid) = (device.block_size(), device.zoned(), device.nsid());
        drop(device);
        let text = |output: Result<Vec<u8>, String>| String::from_utf8(output.unwrap()).unwrap();
        let shown = text(run(&["nvme", "identify"], &node, &[], b""));
        assert!(shown.contains("passthrough") && shown.contains("in use"), "{shown}");
        let shown = text(run(&["nvme", "identify"], &node, &["--json"], b""));
        assert!(shown.contains(&format!("\"nsid\": {nsid}")) && shown.contains("\"formats\": ["), "{shown}");
        let shown = text(run(&["nvme", "smart"], &node, &[], b""));
        assert!(shown.contains("temperature") && shown.contains("°C"), "{shown}");
        let shown = text(run(&["nvme", "smart"], &node, &["--json"], b""));
        assert!(shown.contains("\"temperature_kelvin\": "), "{shown}");

        if zoned.is_none() {
            let data = pattern(1, 3 * size);
            let place = ["--start", "9", "--input", "-"];
            let refused = run(&["nvme", "write"], &node, &place, &data).unwrap_err();
            assert!(refused.contains("say --yes"), "{refused}");
            let written = [&place[..], &["--yes"]].concat();
            let refused = run(&["nvme", "write"], &node, &written, &data[1..]).unwrap_err();
            assert!(refused.contains("no whole blocks") && refused.contains("--pad"), "{refused}");
            run(&["nvme", "write"], &node, &written, &data).unwrap();
            let read = ["--start", "9", "--blocks", "3"];
            assert!(run(&["nvme", "read"], &node, &read, b"").unwrap() == data);
            let file = directory.path().join(format!("read-{nsid}"));
            let to_file = [&read[..], &["--output", file.to_str().unwrap()]].concat();
            run(&["nvme", "read"], &node, &to_file, b"").unwrap();
            assert!(std::fs::read(&file).unwrap() == data);
            let refused = run(&["nvme", "read"], &node, &to_file, b"").unwrap_err();
            assert!(refused.contains("create"), "{refused}");
            let padded = [&written[..], &["--pad"]].concat();
            run(&["nvme", "write"], &node, &padded, &data[..5]).unwrap();
            let back = run(&["nvme", "read"], &node, &["--start", "9"], b"").unwrap();
            assert!(back[..5] == data[..5] && back[5..].iter().all(|byte| *byte == 0));
            let refused = run(&["nvme", "zones"], &node, &[], b"").unwrap_err();
            assert!(refused.contains("has no zones"), "{refused}");
        } else {
            let refused = run(&["nvme", "zones"], &node, &["--action", "reset", "--all"], b"").unwrap_err();
            assert!(refused.contains("say --yes"), "{refused}");
            let refused = run(&["nvme", "zones"], &node, &["--action", "reset", "--yes"], b"").unwrap_err();
            assert!(refused.contains("--zone BLOCK"), "{refused}");
            let shown = text(run(&["nvme", "zones"], &node, &["--action", "reset", "--all", "--yes"], b""));
            assert!(shown.contains("empty") && !shown.contains("full"), "{shown}");
            let shown = text(run(&["nvme", "zones"], &node, &["--action", "open", "--zone", "0", "--most", "1"], b""));
            assert!(shown.contains("explicitly open") && shown.lines().count() == 2, "{shown}");
            let shown = text(run(&["nvme", "zones"], &node, &["--json", "--most", "2"], b""));
            assert_eq!(shown.matches("\"write_pointer\": ").count(), 2, "{shown}");
            run(&["nvme", "zones"], &node, &["--action", "reset", "--all", "--yes"], b"").unwrap();
        }
        let refused = run(&["nvme", "read"], &node, &["--start", "99999999999"], b"").unwrap_err();
        assert!(refused.contains("99999999999"), "{refused}");
    }
}
