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
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(texts(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
    found
}

/// Names that kernels of the sources in a folder have, however their lines are written.
fn kernels_in(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "cu") {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        for line in text.lines().filter_map(|line| line.trim_start().strip_prefix("KERNEL")) {
            let rest = match line.strip_prefix("_OF(") {
                Some(bounds) => bounds.split_once(')').unwrap().1,
                None => line,
            };
            let name = rest.trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            names.insert(name.to_owned());
        }
    }
    names
}

/// What stands between quotation marks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

#[test]
fn every_kernel_is_known() {
    let mut all = kernels_in(&folder("cuda"));
    assert!(all.len() > 10, "{all:?}");
    all.append(&mut kernels_in(&folder("cuda/emulate/bugs")));
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
    let idle: Vec<String> =
        kernels_in(&folder("cuda")).into_iter().filter(|name| !named.contains(name.as_str())).collect();
    assert!(idle.is_empty(), "nothing in kernels/src/cuda launches {idle:?}");
}

/// A test says at its end what it covers, and `covers` fails where it has not launched that.
#[test]
fn every_kernel_is_covered_by_a_test() {
    let tests = texts(&folder("cuda/emulate/tests"), "rs");
    let calls = tests.iter().flat_map(|text| text.split("covers(&[").skip(1));
    let covered: BTreeSet<&str> =
        calls.flat_map(|call| quoted(call.split(']').next().unwrap()).collect::<Vec<_>>()).collect();
    let bare: Vec<String> =
        kernels_in(&folder("cuda")).into_iter().filter(|name| !covered.contains(name.as_str())).collect();
    assert!(bare.is_empty(), "no test covers {bare:?}: end one that launches it with `covers(&[..])`");
}
