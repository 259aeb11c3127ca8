//! A reader caught in a loop writes the same until its limit; on a tile without text that happens easily. What
//! is really on a screen repeats itself less: the limits are wide.

/// Longest unit that is looked for, in bytes.
const UNIT: usize = 60;
/// Fewest repetitions, and fewest bytes of them all.
const TIMES: usize = 8;
const TOTAL: usize = 160;

/// Where the loop that a text ends in says the same for the second time.
pub fn start(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let unit = (1..=UNIT).find(|unit| {
        let length = unit * TIMES.max(TOTAL.div_ceil(*unit));
        let tail = bytes.len().checked_sub(length).map(|at| &bytes[at..]);
        tail.is_some_and(|tail| tail[*unit..] == tail[..length - unit])
    })?;
    let same = bytes.iter().rev().zip(bytes.iter().rev().skip(unit)).take_while(|(a, b)| a == b).count();
    let mut start = bytes.len() - same;
    while !text.is_char_boundary(start) {
        start += 1;
    }
    Some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_cut_where_it_repeats_itself() {
        for unit in ["the end ", "\u{2500}", "ab", "no such file or directory\n"] {
            let text = format!("Error: {}", unit.repeat(200));
            let start = start(&text).expect("it loops");
            assert!(
                text[..start].starts_with(&format!("Error: {}", unit.trim_end())),
                "{:?}",
                &text[..start]
            );
            assert!(start <= "Error: ".len() + unit.len() + 3, "{:?}", &text[..start]);
        }
    }

    #[test]
    fn what_screens_show_is_no_loop() {
        for text in [
            "",
            "warning: unused\nwarning: unused\nwarning: unused\n",
            &"-".repeat(150),
            &"0 0 0 1\n".repeat(7),
            &format!("{}end", "x".repeat(500)),
        ] {
            assert_eq!(start(text), None, "{text}");
        }
    }
}
