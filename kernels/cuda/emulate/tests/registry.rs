//! Every kernel in the sources is known to the emulation, launched by the library, and covered by a test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use gemma_emulation::kernels;

/// A folder from the top of the kernels' crate.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

/// The texts of all files below a folder whose names end like this.
fn texts(folder: &Path, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).expect("the folder is there").flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(texts(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(fs::read_to_string(path).expect("sources are text"));
        }
    }
    found
}

/// Names that kernels of the sources in a folder have, however their lines are indented.
fn kernels_in(folder: &Path) -> BTreeSet<String> {
    let sources = texts(folder, "cu");
    let lines = sources.iter().flat_map(|text| text.lines());
    let kernels = lines.filter_map(|line| line.trim_start().strip_prefix("KERNEL"));
    let name = |line: &str| {
        let rest =
            line.strip_prefix("_OF(").map_or(line, |bounds| bounds.split_once(')').map_or("", |b| b.1));
        rest.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    kernels.map(name).collect()
}

/// The kernels of the library: those that are no bugs of ours.
fn shipped() -> BTreeSet<String> {
    &kernels_in(&folder("cuda")) - &kernels_in(&folder("cuda/emulate/bugs"))
}

/// What stands between quotation marks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

#[test]
fn every_kernel_is_known() {
    let all = kernels_in(&folder("cuda"));
    assert!(all.len() > 10, "{all:?}");
    let known = kernels();
    assert_eq!(
        all,
        known.iter().map(|&name| name.to_owned()).collect(),
        "a kernel's line begins with KERNEL"
    );
    assert_eq!(all.len(), known.len(), "no two kernels have one name");
}

#[test]
fn every_kernel_is_launched_by_the_library() {
    let sources = texts(&folder("src/cuda"), "rs");
    let named: BTreeSet<&str> = sources.iter().flat_map(|text| quoted(text)).collect();
    let idle: Vec<String> = shipped().into_iter().filter(|name| !named.contains(name.as_str())).collect();
    assert!(idle.is_empty(), "nothing in kernels/src/cuda launches {idle:?}");
}

/// A test says at its end what it covers, and `covers` fails where it has not launched that.
#[test]
fn every_kernel_is_covered_by_a_test() {
    let tests = texts(&folder("cuda/emulate/tests"), "rs");
    let calls = tests.iter().flat_map(|text| text.split("covers(&[").skip(1));
    let covered: BTreeSet<&str> =
        calls.flat_map(|call| quoted(call.split(']').next().unwrap()).collect::<Vec<_>>()).collect();
    let bare: Vec<String> = shipped().into_iter().filter(|name| !covered.contains(name.as_str())).collect();
    assert!(bare.is_empty(), "no test covers {bare:?}: end one that launches it with `covers(&[..])`");
}
