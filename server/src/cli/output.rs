//! What a command prints: results on standard output, everything else on standard error.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::failure::{Failure, Outcome};

/// Writes a result to standard output and flushes, so that text streams.
pub fn print(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Failure::stdout(&e))
}

/// Prints the one JSON object of a `--json` run.
pub fn print_json(value: &Value) -> Outcome {
    print(&format!("{value:#}\n"))
}

/// Prints one of several JSON objects, on a line of its own.
pub fn print_json_line(value: &Value) -> Outcome {
    print(&format!("{value}\n"))
}

/// Whether what was printed on standard output leaves the cursor at the beginning of a line: a terminal is
/// given a line end behind every answer.
pub fn ends_line(text: &str) -> bool {
    io::stdout().is_terminal() || text.ends_with('\n')
}

/// Says something to the person at the terminal. When standard error is gone there is nobody to tell.
pub fn say(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether colour may be used on `stream`: a terminal that is not `dumb`, and no `NO_COLOR`.
pub fn colours(stream: &impl IsTerminal) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    stream.is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// A bar over bytes on standard error; hidden when that is no terminal or `quiet` is asked for.
pub fn byte_bar(quiet: bool, what: impl Into<String>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, target(quiet));
    let template = "  {msg} {bar:30.cyan/238} {bytes:>10} of {total_bytes}  {bytes_per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━━─"));
    }
    bar.with_message(what.into())
}

/// A bar over things that are counted, on standard error; hidden as the one over bytes is.
pub fn count_bar(quiet: bool, what: impl Into<String>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, target(quiet));
    let template = "  {msg} {bar:30.cyan/238} {pos} of {len}  {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━━─"));
    }
    bar.with_message(what.into())
}

/// A spinner on standard error, for waits whose length is unknown.
pub fn spinner(quiet: bool, what: impl Into<String>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, target(quiet));
    if let Ok(style) = ProgressStyle::with_template("  {spinner:.cyan} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar.with_message(what.into())
}

fn target(quiet: bool) -> ProgressDrawTarget {
    if quiet || !io::stderr().is_terminal() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    }
}

/// Bytes as people read them, in powers of 1000 as disks and downloads are sold.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ if value < 9.95 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// A name and its value per row, values aligned.
pub fn table(rows: &[(impl AsRef<str>, impl AsRef<str>)]) -> String {
    let width = rows.iter().map(|(name, _)| name.as_ref().chars().count()).max().unwrap_or(0);
    rows.iter()
        .map(|(name, value)| {
            let name = name.as_ref();
            let pad = " ".repeat(width - name.chars().count());
            format!("  {name}{pad}  {}\n", value.as_ref())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_well() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (253_115_136, "253 MB"),
            (999_600, "1.0 MB"),
            (9_949_999_999, "9.9 GB"),
            (u64::MAX, "18446744 TB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn tables_align() {
        assert_eq!(table(&[("a", "1"), ("größe", "2")]), "  a      1\n  größe  2\n");
    }
}
