//! Syntax trees on demand: an edit only notes what changed, and whoever first needs the tree of a text
//! parses it, from the newest tree there is.
//!
//! - An edit never parses, so that the message loop is never held up; it appends to a log.
//! - A reader waits for a tree no longer than its budget. What is not done by then goes on in a thread
//!   of its own, and the finished tree serves as the start for the texts that came after.
//! - One parse a document at a time: a second reader waits for the first and then finishes from there.
//!
//! **Invariant:** a tree that is handed out is the tree of exactly that text. A tree of an earlier text
//! is used only as a start, with every edit since applied to it.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ropey::Rope;
use tree_sitter::{InputEdit, ParseOptions, Parser, Point, Tree};

/// Texts up to this many bytes are parsed to the end by whoever asks: that takes a few milliseconds.
const SMALL: usize = 64 << 10;
/// Longer texts are parsed by the reader for this long.
const BUDGET: Duration = Duration::from_millis(60);
/// What a grammar may take on a small text before it counts as lost, and on any text in its own thread.
const PATIENCE: Duration = Duration::from_secs(5);
/// Texts longer than this get no tree: it would take more memory than it is worth.
const LARGEST: usize = 16 << 20;
/// Edits without a parse in between after which the next one starts afresh: a log must not grow
/// without bounds while nobody asks for trees.
const LONGEST_LOG: usize = 1024;

/// The tree of one text, parsed when first asked for; shared by all snapshots of that text.
pub(super) struct Syntax {
    document: Arc<Parses>,
    /// How many edits of the document's log lead to this text.
    edits: u64,
    tree: OnceLock<Tree>,
    /// Set when a reader has waited in vain: the others then do not.
    slow: AtomicBool,
}

/// What the texts of one document have in common.
struct Parses {
    language: tree_sitter::Language,
    state: Mutex<State>,
    /// Told whenever `State::parsing` becomes false.
    idle: Condvar,
}

#[derive(Default)]
struct State {
    /// The newest tree, and how many edits lead to its text.
    newest: Option<(u64, Tree)>,
    /// The edits since `newest` (and possibly some before), each with its number, from 1.
    log: Vec<(u64, InputEdit)>,
    parsing: bool,
}

impl Syntax {
    /// For a new document.
    pub(super) fn new(language: tree_sitter::Language) -> Syntax {
        let document = Parses { language, state: Mutex::default(), idle: Condvar::new() };
        Syntax { document: Arc::new(document), edits: 0, tree: OnceLock::new(), slow: AtomicBool::new(false) }
    }

    /// For the same text in a document of its own.
    pub(super) fn fork(&self) -> Syntax {
        let fork = Syntax::new(self.document.language.clone());
        if let Some(tree) = self.tree.get() {
            fork.document.lock().newest = Some((fork.edits, tree.clone()));
        }
        fork
    }

    /// For the text after `edit`.
    pub(super) fn after(&self, edit: InputEdit) -> Syntax {
        let edits = self.edits + 1;
        self.document.lock().note(edits, edit);
        let document = Arc::clone(&self.document);
        Syntax { document, edits, tree: OnceLock::new(), slow: AtomicBool::new(false) }
    }

    /// The tree of `text`, which must be the text that this was made for.
    pub(super) fn tree(&self, text: &Rope) -> Option<Tree> {
        self.tree_within(text, if text.len_bytes() <= SMALL { PATIENCE } else { BUDGET })
    }

    /// Makes the tree of `text`, which must be the text that this was made for, on the calling thread.
    pub(super) fn parse(&self, text: &Rope) {
        self.tree_within(text, PATIENCE);
    }

    fn tree_within(&self, text: &Rope, budget: Duration) -> Option<Tree> {
        if let Some(tree) = self.tree.get() {
            return Some(tree.clone());
        }
        if text.len_bytes() > LARGEST {
            return None;
        }
        let deadline = Instant::now() + budget;
        let patience = if self.slow.load(Ordering::Relaxed) { Instant::now() } else { deadline };
        let Some(turn) = Turn::wait(&self.document, patience) else {
            self.slow.store(true, Ordering::Relaxed);
            return None;
        };
        let state = self.document.lock();
        if let Some((edits, tree)) = &state.newest
            && *edits == self.edits
        {
            return Some(self.tree.get_or_init(|| tree.clone()).clone());
        }
        let start = state.start_for(self.edits);
        drop(state);

        let mut parser = Parser::new();
        parser.set_language(&self.document.language).ok()?;
        match parse(&mut parser, text, start.as_ref(), deadline) {
            Some(tree) => {
                turn.finish(self.edits, tree.clone());
                Some(self.tree.get_or_init(|| tree).clone())
            }
            None => {
                self.slow.store(true, Ordering::Relaxed);
                finish_elsewhere(turn, parser, text.clone(), start, self.edits);
                None
            }
        }
    }
}

impl Parses {
    /// A panic while the lock was held cannot leave the state half-changed: each change is one store.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, number: u64, edit: InputEdit) {
        if self.log.len() >= LONGEST_LOG {
            self.log.clear();
            self.newest = None;
        }
        self.log.push((number, edit));
    }

    /// Whether every edit after the first `from` is still in the log.
    fn remembers_since(&self, from: u64, to: u64) -> bool {
        from == to || self.log.first().is_some_and(|(first, _)| *first <= from + 1)
    }

    /// The newest tree, edited to fit the text after `edits` edits.
    fn start_for(&self, edits: u64) -> Option<Tree> {
        let (from, tree) = self.newest.as_ref()?;
        if *from > edits || !self.remembers_since(*from, edits) {
            return None;
        }
        let mut tree = tree.clone();
        for (_, edit) in self.log.iter().filter(|(number, _)| *from < *number && *number <= edits) {
            tree.edit(edit);
        }
        Some(tree)
    }

    fn store(&mut self, edits: u64, tree: Tree) {
        let latest = self.log.last().map_or(edits, |(number, _)| *number);
        let newer = self.newest.as_ref().is_none_or(|(newest, _)| *newest < edits);
        if newer && self.remembers_since(edits, latest.max(edits)) {
            self.log.retain(|(number, _)| *number > edits);
            self.newest = Some((edits, tree));
        }
    }
}

/// The right to parse for a document; given back when dropped, whatever happened meanwhile.
struct Turn(Arc<Parses>);

impl Turn {
    fn wait(document: &Arc<Parses>, deadline: Instant) -> Option<Turn> {
        let left = deadline.saturating_duration_since(Instant::now());
        let (mut state, _) = document
            .idle
            .wait_timeout_while(document.lock(), left, |state| state.parsing)
            .unwrap_or_else(PoisonError::into_inner);
        if state.parsing {
            return None;
        }
        state.parsing = true;
        Some(Turn(Arc::clone(document)))
    }

    fn finish(self, edits: u64, tree: Tree) {
        self.0.lock().store(edits, tree);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.lock().parsing = false;
        self.0.idle.notify_all();
    }
}

/// Carries on with a parse that was not done in time. Without a thread to do it there is no tree, and
/// the next reader begins again.
fn finish_elsewhere(turn: Turn, mut parser: Parser, text: Rope, start: Option<Tree>, edits: u64) {
    let work = move || {
        if let Some(tree) = parse(&mut parser, &text, start.as_ref(), Instant::now() + PATIENCE) {
            turn.finish(edits, tree);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("parse".into()).spawn(work) {
        tracing::warn!("no thread to parse a long document in: {error}");
    }
}

/// Parses until `deadline`; called again with the same text after that, it goes on where it stopped.
fn parse(parser: &mut Parser, text: &Rope, start: Option<&Tree>, deadline: Instant) -> Option<Tree> {
    let mut read = |byte: usize, _: Point| match text.get_chunk_at_byte(byte) {
        Some((chunk, first, _, _)) => chunk.as_bytes().get(byte - first..).unwrap_or_default(),
        None => &[],
    };
    let mut check = |_: &tree_sitter::ParseState| match Instant::now() < deadline {
        true => ControlFlow::Continue(()),
        false => ControlFlow::Break(()),
    };
    parser.parse_with_options(&mut read, start, Some(ParseOptions::new().progress_callback(&mut check)))
}

/// The parser's row and column (in bytes) of `byte`. Its rows end at `\n` alone; where the text has no
/// lone `\r`, ropey's lines are the same and found without counting.
pub(super) fn point(text: &Rope, byte: usize, lone_returns: bool) -> Point {
    let (row, start) = if lone_returns {
        let mut row = 0;
        let mut start = 0;
        let mut at = 0;
        for chunk in text.byte_slice(..byte).chunks() {
            row += chunk.bytes().filter(|b| *b == b'\n').count();
            start = chunk.rfind('\n').map_or(start, |i| at + i + 1);
            at += chunk.len();
        }
        (row, start)
    } else {
        let row = text.byte_to_line(byte);
        (row, text.line_to_byte(row))
    };
    Point { row, column: byte - start }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;

    fn rust() -> tree_sitter::Language {
        Language::Rust.grammar().unwrap()
    }

    /// The tree once it is finished elsewhere.
    fn finished(syntax: &Syntax, text: &Rope) -> Tree {
        loop {
            if let Some(tree) = syntax.tree_within(text, PATIENCE) {
                return tree;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_parse_that_takes_too_long_is_finished_elsewhere() {
        let text = Rope::from_str(&"fn f() { let x = [1, 2, 3]; }\n".repeat(20_000));
        let syntax = Syntax::new(rust());
        assert!(syntax.tree_within(&text, Duration::ZERO).is_none());
        let tree = finished(&syntax, &text);
        assert_eq!(tree.root_node().named_child_count(), 20_000);
        assert!(!tree.root_node().has_error());
    }

    #[test]
    fn a_tree_finished_late_is_the_start_of_the_next() {
        let text = Rope::from_str(&"fn f() {}\n".repeat(20_000));
        let first = Syntax::new(rust());
        assert!(first.tree_within(&text, Duration::ZERO).is_none());
        let mut longer = text.clone();
        longer.insert(0, "fn g() {}\n");
        let edit = InputEdit {
            start_byte: 0,
            old_end_byte: 0,
            new_end_byte: 10,
            start_position: Point::new(0, 0),
            old_end_position: Point::new(0, 0),
            new_end_position: Point::new(1, 0),
        };
        let second = first.after(edit);
        let tree = second.tree_within(&longer, Duration::from_secs(60)).unwrap();
        assert_eq!(tree.root_node().named_child_count(), 20_001);
        // The older text still gets its own tree.
        let older = finished(&first, &text);
        assert_eq!(older.root_node().named_child_count(), 20_000);
    }

    #[test]
    fn a_log_that_nobody_reads_stays_short() {
        let mut text = Rope::from_str("");
        let mut syntax = Syntax::new(rust());
        for n in 0..3 * LONGEST_LOG {
            let byte = text.len_bytes();
            text.insert(byte, ";");
            let (start, end) = (Point::new(0, byte), Point::new(0, byte + 1));
            let edit = InputEdit {
                start_byte: byte,
                old_end_byte: byte,
                new_end_byte: byte + 1,
                start_position: start,
                old_end_position: start,
                new_end_position: end,
            };
            syntax = syntax.after(edit);
            assert!(syntax.document.lock().log.len() <= LONGEST_LOG);
            if n == 10 {
                assert!(syntax.tree(&text).is_some());
            }
        }
        let tree = syntax.tree(&text).unwrap();
        assert_eq!(tree.root_node().end_byte(), 3 * LONGEST_LOG);
    }

    #[test]
    fn rows_end_at_line_feeds_alone() {
        for text in ["", "a\nb", "a\r\nbc\r\n", "a\rb\nc\rd", "\r\r\n\n", "é\n漢\r字"] {
            let rope = Rope::from_str(text);
            let lone = text.replace("\r\n", "").contains('\r');
            for (byte, _) in text.char_indices().chain([(text.len(), ' ')]) {
                let before = &text[..byte];
                let row = before.matches('\n').count();
                let column = byte - before.rfind('\n').map_or(0, |i| i + 1);
                assert_eq!(point(&rope, byte, lone), Point { row, column }, "{text:?} at {byte}");
            }
        }
    }
}
