//! Ids of lines that were encoded before: from one key to the next, nearly all lines of a prompt stay.
//!
//! **Invariant:** the ids are those of encoding the whole text. It is taken apart behind runs of line breaks
//! only, and only where no entry of the vocabulary goes on behind one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use gemma_engine::{ControlPart, Error};

use crate::prompt::Tokens;

/// So many lines are remembered at least, and at most twice as many.
const LINES: usize = 4096;
/// Longer ones are not: they are no code, and seldom seen again.
const LONGEST: usize = 1024;

/// Lines with their ids in one vocabulary. Shared by reference; usable from any thread.
#[derive(Debug, Default)]
pub struct Memory {
    lines: Mutex<Lines>,
}

/// Those looked up lately, and those before: when there are enough of the first, the others are forgotten.
#[derive(Debug, Default)]
struct Lines {
    young: HashMap<Box<str>, Arc<[u32]>>,
    old: HashMap<Box<str>, Arc<[u32]>>,
}

/// A vocabulary with a memory.
pub struct Remembering<'a> {
    /// The vocabulary.
    pub tokens: &'a dyn Tokens,
    /// What was encoded with it before, and nothing else.
    pub memory: &'a Memory,
}

impl Lines {
    fn ids(&mut self, line: &str, tokens: &dyn Tokens) -> Result<Arc<[u32]>, Error> {
        if let Some(ids) = self.young.get(line) {
            return Ok(Arc::clone(ids));
        }
        let (line, ids) = match self.old.remove_entry(line) {
            Some(known) => known,
            None => (line.into(), tokens.encode(line)?.into()),
        };
        if line.len() <= LONGEST {
            if self.young.len() >= LINES {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(line, Arc::clone(&ids));
        }
        Ok(ids)
    }
}

impl Remembering<'_> {
    /// Calls `each` with the ids of each part of a text.
    fn parts(&self, text: &str, mut each: impl FnMut(&[u32])) -> Result<(), Error> {
        if !self.tokens.parts_at_line_breaks() {
            each(&self.tokens.encode(text)?);
            return Ok(());
        }
        let mut lines = self.memory.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for line in whole_lines(text) {
            each(&lines.ids(line, self.tokens)?);
        }
        Ok(())
    }
}

/// Lines with the blank ones behind them.
fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest.find('\n').map_or(rest.len(), |first| {
            let breaks = rest[first..].bytes().take_while(|byte| *byte == b'\n').count();
            first + breaks
        });
        let (line, behind) = rest.split_at(end);
        rest = behind;
        (!line.is_empty()).then_some(line)
    })
}

impl Tokens for Remembering<'_> {
    fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        self.parts(text, |part| ids.extend_from_slice(part))?;
        Ok(ids)
    }

    fn count(&self, text: &str) -> Result<usize, Error> {
        let mut count = 0;
        self.parts(text, |part| count += part.len())?;
        Ok(count)
    }

    fn parts_at_line_breaks(&self) -> bool {
        self.tokens.parts_at_line_breaks()
    }

    fn control_parts<'a>(&self, text: &'a str) -> Vec<ControlPart<'a>> {
        self.tokens.control_parts(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::fake::Words;

    #[test]
    fn a_text_is_its_lines_with_the_blank_ones_behind_them() {
        for (text, lines) in [
            ("", &[][..]),
            ("a", &["a"]),
            ("\n\na\n", &["\n\n", "a\n"]),
            ("a\n\n\n  b\nc", &["a\n\n\n", "  b\n", "c"]),
        ] {
            assert_eq!(whole_lines(text).collect::<Vec<_>>(), lines, "{text:?}");
        }
    }

    #[test]
    fn ids_are_those_of_the_whole_however_much_is_forgotten() {
        let (words, memory) = (Words::default(), Memory::default());
        let remembering = Remembering { tokens: &words, memory: &memory };
        for round in 0..3 {
            for number in (0..LINES * 3).step_by(100) {
                let text: String = (number..number + 150).map(|n| format!("  line {n} é\n\n")).collect();
                let whole = words.encode(&text).expect("ids");
                assert_eq!(remembering.encode(&text).expect("ids"), whole, "{round} {number}");
                assert_eq!(remembering.count(&text), Ok(whole.len()));
            }
        }
        let lines = memory.lines.lock().expect("not poisoned");
        assert!(lines.young.len() <= LINES && lines.old.len() <= LINES);
        assert!(lines.old.len() > LINES / 2);
    }
}
