//! What stays where it is, and what moves.

use std::sync::Arc;

use super::shelf::{Found, Shelf};
use super::*;
use crate::context;
use crate::documents::Documents;
use crate::language::Language;
use crate::prompt::Piece;
use crate::prompt::fake::Words;
use crate::text::{Change, Encoding, Position, Range};

const URI: &str = "file:///project/a.rs";

fn lines(count: usize) -> String {
    (0..count).map(|n| format!("line {n}\n")).collect()
}

fn insert(documents: &Documents, uri: &str, line: u32, text: &str) -> Snapshot {
    let start = Position { line, character: 0 };
    let change = Change { range: Some(Range { start, end: start }), text: text.into() };
    assert!(documents.change(uri, 1, &[change], Encoding::Utf16));
    documents.snapshot(uri).expect("an open document")
}

fn open(uri: &str, text: &str) -> (Documents, Snapshot) {
    let documents = Documents::new();
    documents.open(uri, "rust", 1, text);
    let document = documents.snapshot(uri).expect("an open document");
    (documents, document)
}

/// Remembers a window that begins on a line for a cursor on another.
fn keep(layouts: &Layouts, document: &Snapshot, cursor: usize, start: usize) {
    let text = &document.text;
    let layout = Layout {
        start: Some(text.line_to_byte(start)),
        head: Some("head".into()),
        edited_above: false,
        ..layouts.find(document, text.line_to_char(cursor))
    };
    layouts.keep(document, text.line_to_char(cursor), layout);
}

/// What is found for a cursor on a line: the line that the window begins on, and whether the text above it is
/// as it was.
fn found(layouts: &Layouts, document: &Snapshot, cursor: usize) -> Option<(usize, bool)> {
    let layout = layouts.find(document, document.text.line_to_char(cursor));
    Some((document.text.byte_to_line(layout.start?), !layout.edited_above))
}

#[test]
fn a_place_is_found_again_wherever_the_text_was_edited_meanwhile() {
    let (documents, document) = open(URI, &lines(400));
    let layouts = Layouts::new();
    keep(&layouts, &document, 100, 60);
    keep(&layouts, &document, 300, 250);
    assert_eq!(found(&layouts, &document, 110), Some((60, true)));
    assert_eq!(found(&layouts, &document, 200), None);

    // Between the two places: the second moves, and what it says of the text above may be old.
    let document = insert(&documents, URI, 150, "new\nnew\n");
    assert_eq!(found(&layouts, &document, 100), Some((60, true)));
    assert_eq!(found(&layouts, &document, 302), Some((252, false)));
    keep(&layouts, &document, 302, 252);

    // At the first place, several times, and at the start of its window.
    let mut document = document;
    for line in 100..110 {
        document = insert(&documents, URI, line, "typed\n");
        keep(&layouts, &document, line as usize, 60);
    }
    assert_eq!(found(&layouts, &document, 312), Some((262, false)));
    let document = insert(&documents, URI, 60, "before the window\n");
    assert_eq!(found(&layouts, &document, 109), Some((61, true)));
}

#[test]
fn a_renamed_symbol_moves_no_window() {
    let (documents, document) = open(URI, &lines(200));
    let layouts = Layouts::new();
    keep(&layouts, &document, 100, 60);
    let rename = |line| {
        let at = |character| Position { line, character };
        Change { range: Some(Range { start: at(0), end: at(4) }), text: "renamed".into() }
    };
    assert!(documents.change(URI, 2, &[rename(150), rename(100), rename(20)], Encoding::Utf16));
    let document = documents.snapshot(URI).expect("an open document");
    assert_eq!(found(&layouts, &document, 100), Some((60, false)));
}

#[test]
fn places_beside_each_other_are_remembered_each() {
    let (_documents, document) = open(URI, &lines(400));
    let layouts = Layouts::new();
    keep(&layouts, &document, 100, 60);
    // Ten lines further down one begins with what was shown ten lines above.
    assert_eq!(found(&layouts, &document, 110), Some((60, true)));
    keep(&layouts, &document, 110, 61);
    keep(&layouts, &document, 125, 62);
    let nearest = |line| found(&layouts, &document, line).map(|(start, _)| start);
    assert_eq!([100, 104, 106, 110, 125, 140].map(nearest), [60, 60, 61, 61, 62, 62].map(Some));
    // A cursor that walks on takes its place along.
    for line in 126..=150 {
        keep(&layouts, &document, line, 63);
    }
    assert_eq!([110, 125, 150].map(nearest), [61, 61, 63].map(Some));
}

#[test]
fn only_so_many_places_and_documents_are_remembered() {
    let layouts = Layouts::new();
    let text = lines(PLACES * 40 + 80);
    let (_documents, document) = open(URI, &text);
    for place in 0..=PLACES {
        keep(&layouts, &document, place * 40, 0);
    }
    assert_eq!(found(&layouts, &document, 0), None);
    assert_eq!(found(&layouts, &document, 40), Some((0, true)));
    for number in 0..DOCUMENTS {
        let (_documents, other) = open(&format!("file:///project/{number}.rs"), "x\n");
        keep(&layouts, &other, 0, 0);
    }
    assert_eq!(found(&layouts, &document, 40), None);
}

#[test]
fn an_answer_to_an_older_text_changes_nothing() {
    let (documents, old) = open(URI, &lines(200));
    let layouts = Layouts::new();
    keep(&layouts, &old, 100, 60);
    let new = insert(&documents, URI, 10, "new\n");
    keep(&layouts, &new, 101, 71);
    let layout = Layout { start: Some(0), ..Layout::default() };
    layouts.keep(&old, old.text.line_to_char(100), layout);
    assert_eq!(found(&layouts, &new, 101), Some((71, true)));
}

/// What could be shown of a document: some of its lines and what they are worth.
fn offer(document: &Snapshot, lines: std::ops::Range<usize>, score: f32) -> (Piece, context::Piece) {
    let text = &document.text;
    let chars = text.line_to_char(lines.start)..text.line_to_char(lines.end) - 1;
    let piece = context::Piece {
        uri: Arc::clone(&document.uri),
        path: document.location(),
        text: text.slice(chars.clone()).to_string(),
        score,
        chars,
        lines,
    };
    (Piece { path: "b.rs".into(), language: Language::Rust, text: piece.text.clone() }, piece)
}

/// The first line of each piece.
fn shown(shelf: &Shelf) -> Vec<String> {
    shelf.pieces().iter().map(|piece| piece.text.lines().next().unwrap_or_default().to_owned()).collect()
}

const OTHER: &str = "file:///project/b.rs";
/// Room for three pieces of ten lines.
const BUDGET: usize = 150;

fn update(shelf: &mut Shelf, other: &Snapshot, arrived: bool, offers: &[(usize, f32)]) -> bool {
    let mut asked = false;
    let found = || {
        asked = true;
        let pieces = offers.iter().map(|&(line, score)| offer(other, line..line + 10, score)).collect();
        Found { documents: vec![other.clone()], pieces }
    };
    let words = Words::default();
    shelf.update(&|_| Some(other.clone()), arrived, BUDGET, &words, found).expect("counts");
    asked
}

#[test]
fn pieces_stay_until_something_is_clearly_better() {
    let (_documents, other) = open(OTHER, &lines(100));
    let mut shelf = Shelf::default();
    assert!(update(&mut shelf, &other, true, &[(0, 2.0), (20, 1.5), (40, 1.0), (60, 0.5)]));
    assert_eq!(shown(&shelf), ["line 0", "line 20", "line 40"]);

    // Another order of the same, and something a little better: nothing is even asked for a while.
    let better = [(60, 2.4), (40, 2.0), (20, 1.5), (0, 1.5)];
    assert!(!update(&mut shelf, &other, false, &better));
    for _ in 0..500 {
        update(&mut shelf, &other, false, &better);
    }
    assert_eq!(shown(&shelf), ["line 0", "line 20", "line 40"]);

    // It defines a name that is used here: it comes last, and the others stay in their order.
    assert!(update(&mut shelf, &other, true, &[(60, 3.0), (40, 2.0), (20, 1.5), (0, 1.5)]));
    assert_eq!(shown(&shelf), ["line 0", "line 40", "line 60"]);
}

#[test]
fn a_piece_stays_while_what_it_shows_is_true() {
    let (documents, other) = open(OTHER, &lines(100));
    let mut shelf = Shelf::default();
    let offers = [(0, 2.0), (20, 1.5), (40, 1.0)];
    update(&mut shelf, &other, true, &offers);
    let before = shelf.pieces();

    // Above, behind, and in between: all that is shown still stands there.
    insert(&documents, OTHER, 50, "behind\n");
    insert(&documents, OTHER, 25, "between\n");
    let other = insert(&documents, OTHER, 0, "above\n");
    assert!(!update(&mut shelf, &other, false, &offers));
    assert_eq!(shelf.pieces(), before);

    // A line goes on: it is not wrong. A line is another one: it is.
    let end = Position { line: 22, character: 7 };
    let goes_on = Change { range: Some(Range { start: end, end }), text: " and on".into() };
    assert!(documents.change(OTHER, 2, &[goes_on], Encoding::Utf16));
    let other = documents.snapshot(OTHER).expect("an open document");
    assert!(!update(&mut shelf, &other, false, &offers));
    assert_eq!(shelf.pieces(), before);
    let other = insert(&documents, OTHER, 22, "x");
    assert!(update(&mut shelf, &other, false, &[(1, 2.0), (21, 1.5), (42, 1.0)]));
    assert_eq!(shown(&shelf), ["line 0", "line 40", "line 20"]);
    assert_eq!(shelf.pieces()[..2], [before[0].clone(), before[2].clone()]);
    assert!(shelf.pieces()[2].text.contains("xline 21"));
}

#[test]
fn nothing_is_shown_of_a_document_that_is_not_to_be_shown() {
    let (_documents, other) = open(OTHER, &lines(100));
    let mut shelf = Shelf::default();
    update(&mut shelf, &other, true, &[(0, 2.0)]);
    assert_eq!(shown(&shelf).len(), 1);
    let found = || Found { documents: Vec::new(), pieces: Vec::new() };
    shelf.update(&|_| None, false, BUDGET, &Words::default(), found).expect("counts");
    assert_eq!(shown(&shelf), Vec::<String>::new());
}

#[test]
fn a_new_place_begins_with_what_the_last_one_has_in_common_with_it() {
    let (_documents, other) = open(OTHER, &lines(100));
    let mut shelf = Shelf::default();
    update(&mut shelf, &other, true, &[(0, 2.0), (20, 1.5), (40, 1.0)]);
    let mut next = shelf.as_preference();
    update(&mut next, &other, true, &[(60, 2.0), (40, 1.5), (20, 1.0), (0, 0.5)]);
    assert_eq!(shown(&next), ["line 20", "line 40", "line 60"]);
}
