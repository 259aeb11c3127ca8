//! Which part of a long document is shown: budgets in tokens, edges at line starts that move in jumps.
//!
//! A window that began a fixed number of lines above the cursor would begin elsewhere after every line
//! typed, and nothing of the prompt could be reused. So its start is picked among the lines that keep
//! between half of the budget and all of it: the one whose *rank* is highest. A rank comes from the
//! line's own text, so the same line wins as the cursor moves on, until it leaves the budget; edits
//! elsewhere in the document do not change it; and things that begin at the margin after a blank line
//! rank above everything else.

use gemma_engine::Error;

use crate::prompt::Tokens;

/// No token of the family's vocabularies is longer than this many bytes of code for long: texts are cut
/// to this many bytes a token before anything is counted.
const BYTES_PER_TOKEN: usize = 8;

/// Where the window of the text before the cursor begins, in bytes: at a line start, with at most
/// `budget` tokens behind it. In a line that is longer than the budget alone, at a character.
pub fn start(before: &str, budget: usize, tokens: &dyn Tokens) -> Result<usize, Error> {
    if budget == 0 {
        return Ok(before.len());
    }
    let reach = floor_boundary(before, before.len().saturating_sub(budget * BYTES_PER_TOKEN));
    let mut starts = line_starts_backwards(before, reach).peekable();
    let mut end = before.len();
    let mut used = 0;
    let mut best: Option<(u32, usize)> = None;
    while let Some(at) = starts.next() {
        used += tokens.count(&before[at..end])?;
        end = at;
        if used > budget {
            return match best {
                Some((_, at)) => Ok(at),
                None => within_line(before, at, budget, tokens),
            };
        }
        if at == 0 {
            return Ok(0);
        }
        if used * 2 >= budget || starts.peek().is_none() {
            let rank = rank(before, at);
            // On a tie the earlier line, which is the later candidate: it shows more.
            if best.is_none_or(|(highest, _)| rank >= highest) {
                best = Some((rank, at));
            }
        }
    }
    match best {
        Some((_, at)) => Ok(at),
        None => within_line(before, reach, budget, tokens),
    }
}

/// Where the window of the text behind the cursor ends, in bytes: at a line start, or the end of the
/// text, with at most `budget` tokens before it. Typing before it does not move it.
pub fn end(after: &str, budget: usize, tokens: &dyn Tokens) -> Result<usize, Error> {
    let mut used = 0;
    let mut at = 0;
    for line in after.split_inclusive('\n') {
        let line_fits = line.len() <= (budget - used) * BYTES_PER_TOKEN;
        let count = if line_fits { tokens.count(line)? } else { usize::MAX };
        if count > budget - used {
            break;
        }
        used += count;
        at += line.len();
    }
    Ok(at)
}

/// Starts of lines from the last one up, down to `reach`.
fn line_starts_backwards(text: &str, reach: usize) -> impl Iterator<Item = usize> {
    let mut next = Some(text.len());
    std::iter::from_fn(move || {
        let from = next?;
        let at = text[..from].rfind('\n').map_or(0, |newline| newline + 1);
        next = at.checked_sub(1);
        (at >= reach).then_some(at)
    })
}

/// How good a place a line is to begin at: the start of something, then by a hash of its text, so that
/// which of two lines ranks higher never depends on where they stand.
fn rank(text: &str, at: usize) -> u32 {
    let line = text[at..].lines().next().unwrap_or_default();
    if !line.contains(char::is_alphanumeric) {
        return 0;
    }
    // FNV-1a: the same in every process, unlike the standard library's.
    let hash =
        line.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let after_blank = text[..at].ends_with("\n\n");
    let at_margin = !line.starts_with(char::is_whitespace);
    let structure = match (after_blank, at_margin) {
        (true, true) => 3,
        (false, true) => 2,
        (true, false) => 1,
        (false, false) => 0,
    };
    (structure << 28) | (hash >> 4)
}

/// In a line longer than the budget: as much of its end as fits, in steps, so that typing at its end
/// does not move the start each time.
fn within_line(before: &str, line: usize, budget: usize, tokens: &dyn Tokens) -> Result<usize, Error> {
    const STEP: usize = 256;
    let reach = floor_boundary(before, before.len().saturating_sub(budget * BYTES_PER_TOKEN)).max(line);
    let mut at = line + (reach - line).div_ceil(STEP) * STEP;
    loop {
        at = floor_boundary(before, at.min(before.len()));
        if at == before.len() || tokens.count(&before[at..])? <= budget {
            return Ok(at);
        }
        at += STEP;
    }
}

fn floor_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::fake::Words;

    fn source(functions: usize) -> String {
        (0..functions)
            .map(|n| format!("fn number_{n}() {{\n    let a = {n};\n    work(a);\n}}\n\n"))
            .collect()
    }

    #[test]
    fn short_texts_are_shown_whole() {
        let words = Words::default();
        assert_eq!(start("a b\nc", 100, &words), Ok(0));
        assert_eq!(start("", 100, &words), Ok(0));
        assert_eq!(start("a b", 0, &words), Ok(3));
        assert_eq!(end("a b\nc\n", 100, &words), Ok(6));
        assert_eq!(end("", 100, &words), Ok(0));
    }

    #[test]
    fn windows_keep_their_budget_and_begin_at_lines() {
        let words = Words::default();
        let text = source(60);
        for budget in [20, 50, 200, 500] {
            let at = start(&text, budget, &words).expect("counts");
            let used = words.count(&text[at..]).expect("counts");
            assert!(at > 0 && used <= budget && used * 2 >= budget, "{used} of {budget}");
            assert!(text[..at].ends_with('\n'));
            let at = end(&text, budget, &words).expect("counts");
            let used = words.count(&text[..at]).expect("counts");
            assert!(
                used <= budget && used + 12 + budget / 20 > budget && text[..at].ends_with('\n'),
                "{used} of {budget}"
            );
        }
    }

    #[test]
    fn the_start_moves_a_handful_of_times_while_a_page_is_typed() {
        let words = Words::default();
        let text = source(60);
        let typed = source(90)[text.len()..].to_string();
        let mut document = text;
        let mut starts = Vec::new();
        for c in typed.chars() {
            document.push(c);
            starts.push(start(&document, 400, &words).expect("counts"));
        }
        starts.dedup();
        // 150 lines are typed, twelve tokens each function of five.
        assert!(starts.len() <= 12, "{} starts for {} keys", starts.len(), typed.len());
        assert!(starts.iter().all(|&at| document[at..].starts_with("fn ")));
    }

    #[test]
    fn edits_above_the_window_do_not_change_what_it_shows() {
        let words = Words::default();
        let text = source(60);
        let shown = |text: &str| text[start(text, 300, &words).expect("counts")..].to_string();
        assert_eq!(shown(&text), shown(&format!("use std::io;\n{text}")));
    }

    #[test]
    fn a_line_without_end_is_cut_at_a_character_in_steps() {
        let words = Words::default();
        let line = "ä, ".repeat(10_000);
        let at = start(&line, 100, &words).expect("counts");
        assert!(words.count(&line[at..]).expect("counts") <= 100 && at < line.len());
        let longer = format!("{line}b");
        assert_eq!(start(&longer, 100, &words), Ok(at));
        assert_eq!(end(&line, 100, &words), Ok(0));
    }
}
