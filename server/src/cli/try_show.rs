//! What `gemma-ls try` shows: lines of code with grey text behind the cursor, and how long it took.

use std::collections::HashSet;

use serde::Serialize;

/// Columns of a line of code with its suggestion.
const CODE: usize = 42;

/// One key typed, and what the server suggested then.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Keystroke {
    /// The key.
    pub typed: String,
    /// The line with the cursor, up to the cursor.
    pub line: String,
    /// What was suggested behind the cursor; empty for nothing.
    pub suggestion: String,
    /// Why there is or is not a suggestion, as the server says.
    pub reason: Option<String>,
    /// The rule that the reason names: which one filtered it, or `reuse` for a suggestion that goes on.
    pub rule: Option<String>,
    /// From the request to the model's first token, in ms; absent when the model was not asked.
    pub ttft_ms: Option<f64>,
    /// Prompt tokens that came out of the cache.
    pub cached_tokens: Option<u64>,
    /// Prompt tokens that were computed.
    pub prefill_tokens: Option<u64>,
    /// Tokens generated.
    pub decode_tokens: Option<u64>,
    /// From sending the request to having the suggestion, in ms, as the client sees it.
    pub total_ms: f64,
}

impl Keystroke {
    /// Takes what the server says about its last completion from an answer to `gemma/status`.
    pub fn take_status(&mut self, status: &serde_json::Value) {
        let last = &status["completions"]["last"];
        let timings = &last["timings"];
        self.reason = last["reason"].as_str().map(str::to_owned);
        self.rule = last["rule"].as_str().map(str::to_owned);
        self.ttft_ms = timings["ttft_ms"].as_f64();
        self.cached_tokens = timings["cached_tokens"].as_u64();
        self.prefill_tokens = timings["prefill_tokens"].as_u64();
        self.decode_tokens = timings["decode_tokens"].as_u64();
    }
}

/// Paints text for a terminal, or leaves it plain.
#[derive(Debug, Clone, Copy)]
pub struct Painter {
    /// Whether escape codes may be written.
    pub colour: bool,
}

impl Painter {
    fn paint(self, code: &str, text: &str) -> String {
        match self.colour && !text.is_empty() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// What matters less.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// What was typed or accepted.
    pub fn fresh(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Grey text behind the cursor; without colour, guillemets tell it from the code.
    pub fn ghost(self, text: &str) -> String {
        match self.colour || text.is_empty() {
            true => self.paint("38;5;244", text),
            false => format!("«{text}»"),
        }
    }

    /// A line of code with its number, counted from 1.
    pub fn numbered(self, number: usize, code: &str) -> String {
        format!("  {} {code}\n", self.dim(&format!("{number:>3} │")))
    }

    /// Numbered lines of code; those in `fresh` stand out.
    pub fn listing(self, text: &str, fresh: &HashSet<usize>) -> String {
        let mut shown = String::new();
        for (number, line) in (1..).zip(text.lines()) {
            let code = if fresh.contains(&number) { self.fresh(line) } else { line.to_owned() };
            shown.push_str(&self.numbered(number, &code));
        }
        shown
    }

    /// The head of the keystrokes' table.
    pub fn head(self) -> String {
        let text = format!(
            "{:<5}{:<CODE$} {:>7} {:>12} {:>9}",
            "key", "the line, and the suggestion", "read", "first token", "shown"
        );
        format!("  {}\n", self.dim(&text))
    }

    /// One keystroke as a row: the key, the line with its grey text, the prompt tokens that were read for
    /// it, the two times.
    pub fn row(self, stroke: &Keystroke) -> String {
        let key = match stroke.typed.as_str() {
            " " => "␣",
            key => key,
        };
        let typed = cut_front(stroke.line.trim_start(), CODE / 2);
        let (ghost, more) = self.first_line(stroke, CODE - typed.chars().count());
        let used = typed.chars().count() + width(&ghost, self.colour) + more.chars().count();
        let pad = " ".repeat(CODE.saturating_sub(used));
        let read = stroke.prefill_tokens.map_or_else(|| "-".to_owned(), |tokens| tokens.to_string());
        let first = stroke.ttft_ms.map_or_else(|| "-".to_owned(), milliseconds);
        let shown = milliseconds(stroke.total_ms);
        format!(
            "  {key:<5}{typed}{}{}{pad} {read:>7} {first:>12} {shown:>9}\n",
            self.ghost(&ghost),
            self.dim(&more)
        )
    }

    /// A line that Tab completed.
    pub fn taken(self, line: &str) -> String {
        format!("  {} {}\n", self.bold("Tab "), self.fresh(line.trim_start()))
    }

    /// A line that was not typed key by key.
    pub fn pasted(self, line: &str) -> String {
        format!("       {}\n", self.dim(line.trim()))
    }

    /// The suggestion's first line in `room` columns, and a note on what is left out.
    fn first_line(self, stroke: &Keystroke, room: usize) -> (String, String) {
        let mut lines = stroke.suggestion.lines();
        let first = lines.next().unwrap_or_default();
        let more = match lines.count() {
            _ if stroke.suggestion.is_empty() => {
                let why = stroke.reason.as_deref().unwrap_or("nothing to show");
                format!("  ({why})")
            }
            0 => String::new(),
            more => format!("  +{more} line{}", if more == 1 { "" } else { "s" }),
        };
        let marks = if self.colour { 0 } else { 2 };
        let room = room.saturating_sub(more.chars().count() + marks);
        (cut_back(first, room), more)
    }
}

/// Columns that grey text takes, the guillemets of a plain terminal counted.
fn width(ghost: &str, colour: bool) -> usize {
    let marks = if colour || ghost.is_empty() { 0 } else { 2 };
    ghost.chars().count() + marks
}

/// The last `room` characters, an ellipsis in front when something is missing.
fn cut_front(text: &str, room: usize) -> String {
    let length = text.chars().count();
    match length <= room {
        true => text.to_owned(),
        false => "…".chars().chain(text.chars().skip(length + 1 - room.max(1))).collect(),
    }
}

/// The first `room` characters, an ellipsis behind when something is missing.
fn cut_back(text: &str, room: usize) -> String {
    match text.chars().count() <= room {
        true => text.to_owned(),
        false => text.chars().take(room.saturating_sub(1)).chain("…".chars()).collect(),
    }
}

/// A time as people read it.
pub fn milliseconds(ms: f64) -> String {
    match ms {
        _ if ms < 9.95 => format!("{ms:.1} ms"),
        _ if ms < 9_999.5 => format!("{ms:.0} ms"),
        _ => format!("{:.1} s", ms / 1000.0),
    }
}

/// The middle one of some times: half are as fast.
pub fn median(mut times: Vec<f64>) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Painter = Painter { colour: false };
    const COLOUR: Painter = Painter { colour: true };

    fn stroke(line: &str, suggestion: &str) -> Keystroke {
        Keystroke {
            typed: "r".into(),
            line: line.into(),
            suggestion: suggestion.into(),
            ttft_ms: Some(12.3),
            prefill_tokens: Some(7),
            total_ms: 45.6,
            ..Keystroke::default()
        }
    }

    #[test]
    fn rows_end_in_the_same_column_whatever_they_hold() {
        let long = "x".repeat(300);
        let rows = [
            PLAIN.head(),
            PLAIN.row(&stroke("    r", "eturn self.items")),
            PLAIN.row(&stroke("    r", "")),
            PLAIN.row(&stroke("", "first\nsecond\nthird")),
            PLAIN.row(&stroke("    größe", "🦀")),
            PLAIN.row(&stroke(&long, &long)),
            PLAIN.row(&stroke(&long, "")),
        ];
        let widths: Vec<usize> = rows.iter().map(|row| row.trim_end_matches('\n').chars().count()).collect();
        assert!(widths.iter().all(|w| *w == widths[0]), "{widths:?}\n{}", rows.concat());
    }

    #[test]
    fn a_plain_terminal_sees_what_is_suggestion() {
        let row = PLAIN.row(&stroke("    r", "eturn x\n    y"));
        assert!(row.starts_with("  r    r«eturn x»  +1 line "), "{row}");
        assert!(row.ends_with("  7        12 ms     46 ms\n"), "{row}");
        assert!(!row.contains('\x1b'));
    }

    #[test]
    fn colour_paints_the_suggestion_grey_and_moves_nothing() {
        let row = COLOUR.row(&stroke("    r", "eturn x"));
        assert!(row.contains("r\x1b[38;5;244meturn x\x1b[0m"), "{row:?}");
        assert!(!row.contains('«'));
    }

    #[test]
    fn nothing_to_show_says_why() {
        let mut nothing = stroke("    r", "");
        nothing.reason = Some("filtered".into());
        nothing.ttft_ms = None;
        let row = PLAIN.row(&nothing);
        assert!(row.contains("(filtered)") && row.contains(" - "), "{row}");
    }

    #[test]
    fn listings_number_their_lines() {
        assert_eq!(PLAIN.listing("a\n  b\n", &HashSet::new()), "    1 │ a\n    2 │   b\n");
        assert!(COLOUR.listing("a\nb\n", &HashSet::from([2])).contains("\x1b[32mb\x1b[0m"));
    }

    #[test]
    fn times_read_well() {
        for (ms, text) in
            [(0.04, "0.0 ms"), (9.94, "9.9 ms"), (9.96, "10 ms"), (1234.4, "1234 ms"), (12_345.0, "12.3 s")]
        {
            assert_eq!(milliseconds(ms), text);
        }
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![]), None);
    }
}
