//! Runs `cases.txt` through the whole chain.

use crate::completion::shape::decide;
use crate::completion::site::{Lexis, Site};
use crate::settings::MultiLine;

use super::run;

/// One case: a document with a cursor, what the model says, what is shown.
struct Case<'a> {
    title: &'a str,
    document: &'a str,
    answer: &'a str,
    expected: &'a str,
}

fn parse(text: &str) -> Vec<Case<'_>> {
    let cases = text.split("\n=== ").skip(1).map(|case| {
        let (title, rest) = case.split_once('\n').expect("a title");
        let (document, rest) = rest.split_once("\n--- answer\n").expect("an answer");
        let (answer, expected) = rest.split_once("\n--- shown\n").expect("what is shown");
        Case { title, document, answer, expected: expected.trim_end_matches('\n') }
    });
    cases.collect()
}

fn site(case: &Case<'_>) -> Site {
    let options = case.title.split_once(':').map_or("", |(options, _)| options);
    let lexis = if options.contains("python") {
        Lexis { line_comment: Some("#"), slash_star: false, single_quoted_strings: true }
    } else {
        Lexis { line_comment: Some("//"), slash_star: true, single_quoted_strings: false }
    };
    let (before, after) = case.document.split_once('‸').expect("a cursor");
    let shape = decide(before, after, &lexis, false, MultiLine::Auto);
    Site::new(before.into(), after.into(), lexis, shape, options.contains("blind"))
}

#[test]
fn every_case_shows_what_it_says() {
    let cases = parse(include_str!("cases.txt"));
    assert!(cases.len() > 20);
    let mut wrong = Vec::new();
    for case in &cases {
        let shown = run(&site(case), case.answer, case.title.contains("cut short"));
        let covered = if shown.covers > 0 { format!("\n(covers {})", shown.covers) } else { String::new() };
        let got = match shown.rule {
            Some(rule) => format!("(nothing: {rule})"),
            None if shown.text.ends_with('\n') => format!("{}↵{covered}", shown.text),
            None => format!("{}{covered}", shown.text),
        };
        if got != case.expected {
            wrong.push(format!("=== {}\n{got:?}\ninstead of\n{:?}", case.title, case.expected));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
