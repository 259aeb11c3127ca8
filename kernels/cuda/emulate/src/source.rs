//! Lines of the sources that machine code was made from.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Lines by object file and place.
type Lines = HashMap<(String, u64), Option<String>>;

/// What was asked for before: a test of a bug meets the same line under every schedule.
static KNOWN: LazyLock<Mutex<Lines>> = LazyLock::new(Mutex::default);

/// The line that an instruction was made from, as `file:line`: so many bytes from a function of an object
/// file.
///
/// It asks `nm` and `addr2line`, which are there where a C++ compiler is. Without them, or without the object
/// file, there is none. Object files keep their line tables where cargo drops those of programs.
pub(crate) fn line_of(object: &str, function: &str, bytes: u64) -> Option<String> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.entry((object.to_owned(), bytes)).or_insert_with(|| look_up(object, function, bytes)).clone()
}

fn look_up(object: &str, function: &str, bytes: u64) -> Option<String> {
    let symbols = output(Command::new("nm").arg(object))?;
    let symbol = symbols.lines().find(|line| line.ends_with(&format!(" {function}")))?;
    let start = u64::from_str_radix(symbol.split(' ').next()?, 16).ok()?;
    let at = format!("{:#x}", start.wrapping_add(bytes));
    // Inlined functions come first, each followed by where it was called.
    let places = output(Command::new("addr2line").args(["-i", "-j", ".text", "-e", object, &at]))?;
    let place = places.lines().find(|line| line.contains(".cu:") || line.contains(".cuh:"))?;
    Some(Path::new(place.split(" (").next()?).file_name()?.to_str()?.to_owned())
}

fn output(command: &mut Command) -> Option<String> {
    String::from_utf8(command.output().ok()?.stdout).ok()
}
