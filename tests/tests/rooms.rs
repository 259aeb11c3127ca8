//! The rooms of the house: who may know whom, and how a file has to look. See ARCHITECTURE.md.

use std::path::{Path, PathBuf};
use std::process::Command;

use gemma_tests::numbers::Findings;
use gemma_tests::places;
use serde_json::Value;

/// Lines of a file at most, about; a file that needs more holds two things.
const MOST_LINES: usize = 600;

/// The crates of the workspace, and those of them that each may use to run.
const ROOMS: [(&str, &[&str]); 5] = [
    ("gemma-ls", &["gemma-engine"]),
    ("gemma-engine", &["gemma-kernels"]),
    ("gemma-kernels", &[]),
    ("gemma-emulation", &["gemma-kernels"]),
    ("gemma-tests", &["gemma-engine", "gemma-kernels", "gemma-emulation"]),
];

/// Folders, and files, that may say `unsafe`.
const UNSAFE_ROOMS: [&str; 3] = ["kernels/src/", "kernels/cuda/emulate/src/", "engine/src/checkpoint/map.rs"];
/// What names a type of the protocol, and where it may stand.
const PROTOCOL_NAMES: [&str; 3] = ["tower_lsp", "gen_lsp_types", "lsp_types"];
const PROTOCOL_ROOM: &str = "server/src/lsp/";

/// Everything cargo knows of the workspace.
fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(places::repository())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

/// All Rust files of the crates' `src` folders and the tests from outside, as paths from the top with `/`, and their texts.
fn sources() -> Vec<(String, String)> {
    let top = places::repository();
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["server", "engine", "kernels", "tests"].map(|c| top.join(c).join("src")).into();
    folders.extend(["tests/tests", "kernels/cuda/emulate"].map(|folder| top.join(folder)));
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found
                    .push((name_of(&path, &top), std::fs::read_to_string(&path).expect("sources are UTF-8")));
            }
        }
    }
    assert!(found.len() > 20, "only {} sources were found", found.len());
    found
}

fn name_of(path: &Path, top: &Path) -> String {
    let path = path.strip_prefix(top).expect("it was found below the top");
    path.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// The lines of a file that are no comments, numbered from 1.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Whether a line has this word, outside of texts and not as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let line: String = line.split('"').step_by(2).collect::<Vec<_>>().join("\"");
    let within = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        !within(line[..at].chars().next_back()) && !within(line[at + word.len()..].chars().next())
    })
}

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("cargo lists packages");
    assert_eq!(packages.len(), ROOMS.len(), "a crate was added or lost: say here what it may know");
    for package in packages {
        let name = package["name"].as_str().expect("a package has a name");
        let (_, allowed) =
            ROOMS.iter().find(|(room, _)| *room == name).unwrap_or_else(|| panic!("{name} is no known room"));
        let dependencies = package["dependencies"].as_array().expect("a package lists its dependencies");
        // What only tests use is no way that anything passes.
        let used = dependencies.iter().filter(|dependency| dependency["kind"] != "dev");
        let ours = used.filter_map(|dependency| dependency["name"].as_str());
        for dependency in ours.filter(|dependency| ROOMS.iter().any(|(room, _)| room == dependency)) {
            assert!(allowed.contains(&dependency), "{name} must not know {dependency}");
        }
    }
}

#[test]
fn only_the_protocols_room_names_the_protocol() {
    let mut findings = Findings::default();
    for (name, text) in
        sources().iter().filter(|(name, _)| !is_exempt(name) && !name.starts_with(PROTOCOL_ROOM))
    {
        for (number, line) in code(text) {
            let named = PROTOCOL_NAMES.iter().find(|word| has_word(line, word));
            findings.check(named.is_none(), || format!("{name}:{number} names {}", named.unwrap_or(&"it")));
        }
    }
    findings.assert_none();
}

#[test]
fn unsafe_code_stays_where_it_is_needed() {
    let mut findings = Findings::default();
    for (name, text) in sources().iter().filter(|(name, _)| !is_exempt(name)) {
        if UNSAFE_ROOMS.iter().any(|room| name.starts_with(room)) {
            continue;
        }
        for (number, line) in code(text) {
            findings.check(!has_word(line, "unsafe"), || format!("{name}:{number} says unsafe"));
        }
    }
    findings.assert_none();
}

/// This very file spells what it looks for.
fn is_exempt(name: &str) -> bool {
    name == "tests/tests/rooms.rs"
}

#[test]
fn every_module_says_what_it_is_for() {
    let mut findings = Findings::default();
    for (name, text) in sources() {
        findings.check(text.starts_with("//! "), || format!("{name} does not open with a //! line"));
    }
    findings.assert_none();
}

#[test]
fn no_file_is_too_long_to_read() {
    let mut findings = Findings::default();
    for (name, text) in sources() {
        let lines = text.lines().count();
        findings.check(lines <= MOST_LINES, || format!("{name} has {lines} lines, at most {MOST_LINES}"));
    }
    findings.assert_none();
}

#[test]
fn words_are_whole_words() {
    assert!(has_word("use tower_lsp::jsonrpc;", "tower_lsp"));
    assert!(!has_word("use my_tower_lsp::jsonrpc;", "tower_lsp"));
    assert!(has_word("    unsafe { x }", "unsafe"));
    assert!(!has_word("[\"select\", \"unsafe\", \"return\"]", "unsafe"));
    assert!(!has_word("unsafe_op_in_unsafe_fn", "unsafe"));
}
