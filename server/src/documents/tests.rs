//! Open documents against a naive model of the text, and their trees against a fresh parse.

use proptest::prelude::*;

use super::*;
use crate::text::{Position, Range, position_of};

const URI: &str = "file:///a.rs";

fn at(line: u32, character: u32) -> Position {
    Position { line, character }
}

fn change(start: (u32, u32), end: (u32, u32), text: &str) -> Change {
    let range = Range { start: at(start.0, start.1), end: at(end.0, end.1) };
    Change { range: Some(range), text: text.into() }
}

fn whole(text: &str) -> Change {
    Change { range: None, text: text.into() }
}

/// The text of a document opened with `before` after one `didChange`.
fn changed(before: &str, changes: &[Change]) -> String {
    let documents = Documents::new();
    documents.open(URI, "rust", 1, before);
    assert!(documents.change(URI, 2, changes, Encoding::Utf16));
    documents.snapshot(URI).unwrap().text.to_string()
}

#[test]
fn changes_apply_in_order() {
    let cases: &[(&str, Vec<Change>, &str)] = &[
        ("", vec![], ""),
        ("", vec![change((0, 0), (0, 0), "a"), change((0, 1), (0, 1), "b")], "ab"),
        ("one\ntwo", vec![change((0, 3), (1, 0), " ")], "one two"),
        ("one\ntwo", vec![change((1, 3), (0, 3), "!")], "one!"),
        ("a😀b", vec![change((0, 3), (0, 4), "c")], "a😀c"),
        ("a😀b", vec![change((0, 2), (0, 3), "-")], "a-b"),
        ("a\r\nb", vec![change((0, 9), (0, 9), ";")], "a;\r\nb"),
        ("a", vec![change((7, 7), (9, 9), "\nb")], "a\nb"),
        ("x", vec![whole("one"), change((0, 0), (0, 1), "O"), whole("two"), whole("")], ""),
        ("one two", vec![whole("one more two")], "one more two"),
    ];
    for (before, changes, after) in cases {
        assert_eq!(&changed(before, changes), after, "{before:?} {changes:?}");
    }
}

#[test]
fn what_is_not_open_is_ignored() {
    let documents = Documents::new();
    assert!(!documents.change(URI, 1, &[whole("x")], Encoding::Utf16));
    assert!(!documents.save(URI, Some("x")));
    assert!(!documents.close(URI));
    documents.rename(URI, "file:///b.rs");
    assert!(documents.snapshot(URI).is_none());
    assert!(documents.others(URI).is_empty());
}

#[test]
fn the_others_come_most_recently_used_first() {
    let documents = Documents::new();
    let order = |of: &str| -> Vec<String> {
        documents.others(of).iter().map(|other| other.uri.to_string()).collect()
    };
    for uri in ["u:a", "u:b", "u:c"] {
        documents.open(uri, "rust", 1, "");
    }
    assert_eq!(order("u:c"), ["u:b", "u:a"]);
    documents.change("u:a", 2, &[], Encoding::Utf16);
    assert_eq!(order("u:c"), ["u:a", "u:b"]);
    documents.snapshot("u:b");
    assert_eq!(order("u:c"), ["u:b", "u:a"]);
    documents.close("u:b");
    assert_eq!(order("u:c"), ["u:a"]);
    assert_eq!(order("u:unknown"), ["u:a", "u:c"]);
}

#[test]
fn revisions_never_repeat() {
    let documents = Documents::new();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..3 {
        documents.open(URI, "rust", 1, "same");
        assert!(seen.insert(documents.snapshot(URI).unwrap().revision));
        documents.change(URI, 1, &[whole("same")], Encoding::Utf16);
        assert!(seen.insert(documents.snapshot(URI).unwrap().revision));
        documents.close(URI);
    }
}

#[test]
fn a_snapshot_stays_what_it_was() {
    let documents = Documents::new();
    documents.open(URI, "rust", 1, "fn a() {}");
    let before = documents.snapshot(URI).unwrap();
    documents.change(URI, 2, &[whole("struct B;")], Encoding::Utf16);
    assert_eq!(before.text, "fn a() {}");
    assert_eq!(before.version, 1);
    let kind = |snapshot: &Snapshot| snapshot.tree().unwrap().root_node().child(0).unwrap().kind().to_owned();
    assert_eq!(kind(&documents.snapshot(URI).unwrap()), "struct_item");
    assert_eq!(kind(&before), "function_item");
}

#[test]
fn a_rename_moves_documents_and_folders() {
    let documents = Documents::new();
    documents.open("file:///p/a.rs", "rust", 1, "x = 1");
    documents.open("file:///p/sub/b.rs", "rust", 1, "");
    documents.open("file:///p/sub/c.txt", "plaintext", 1, "");
    documents.open("file:///p/subway.rs", "rust", 1, "");
    documents.rename("file:///p/a.rs", "file:///p/a.py");
    let python = documents.snapshot("file:///p/a.py").unwrap();
    assert_eq!(python.language, Language::Python);
    assert_eq!(python.language_id.as_ref(), "python");
    assert_eq!(python.path, Some(PathBuf::from("/p/a.py")));
    assert!(!python.tree().unwrap().root_node().has_error());
    assert!(documents.snapshot("file:///p/a.rs").is_none());

    documents.rename("file:///p/sub/", "file:///q");
    let mut uris: Vec<_> = documents.others("").iter().map(|one| one.uri.to_string()).collect();
    uris.sort();
    assert_eq!(uris, ["file:///p/a.py", "file:///p/subway.rs", "file:///q/b.rs", "file:///q/c.txt"]);
    assert_eq!(documents.snapshot("file:///q/b.rs").unwrap().language, Language::Rust);

    // A client that has opened the new name already knows better.
    documents.open("file:///q/d.rs", "rust", 7, "new");
    documents.rename("file:///q/b.rs", "file:///q/d.rs");
    assert_eq!(documents.snapshot("file:///q/d.rs").unwrap().text, "new");
}

#[test]
fn saving_tells_whether_the_text_is_on_disk() {
    let documents = Documents::new();
    let saved = || documents.snapshot(URI).unwrap().saved;
    documents.open(URI, "rust", 1, "a");
    assert!(documents.save(URI, None));
    assert!(saved());
    documents.change(URI, 2, &[whole("b")], Encoding::Utf16);
    assert!(!saved());
    documents.save(URI, Some("c"));
    assert!(saved());
    assert_eq!(documents.snapshot(URI).unwrap().text, "c");
}

#[test]
fn the_line_ending_outlives_the_lines() {
    let documents = Documents::new();
    documents.open(URI, "rust", 1, "a\r\nb");
    let ending = || documents.snapshot(URI).unwrap().line_ending;
    assert_eq!(ending(), LineEnding::CrLf);
    documents.change(URI, 2, &[whole("")], Encoding::Utf16);
    assert_eq!(ending(), LineEnding::CrLf);
    documents.change(URI, 3, &[whole("a\nb")], Encoding::Utf16);
    assert_eq!(ending(), LineEnding::Lf);
}

#[test]
fn a_document_without_a_grammar_has_no_tree() {
    let snapshot = Snapshot::new("untitled:Untitled-1", "plaintext", "hello");
    assert_eq!(snapshot.language, Language::Other);
    assert!(snapshot.tree().is_none());
    assert_eq!(snapshot.location(), PathBuf::from("Untitled-1"));
}

/// The text after a change, by the simplest means: the protocol's words, one character at a time.
fn naive(text: &str, change: &Change, encoding: Encoding) -> String {
    let Some(range) = change.range else { return change.text.clone() };
    let chars: Vec<char> = text.chars().collect();
    let place = |position: Position| {
        let (mut line, mut units, mut index) = (0, 0, 0);
        while index < chars.len() {
            let c = chars[index];
            let after_return = c == '\n' && index > 0 && chars[index - 1] == '\r';
            if line == position.line && ((c == '\n' && !after_return) || c == '\r') {
                return index;
            }
            if line == position.line && !after_return {
                units += match encoding {
                    Encoding::Utf8 => c.len_utf8(),
                    Encoding::Utf16 => c.len_utf16(),
                    Encoding::Utf32 => 1,
                };
                if units > position.character as usize {
                    return index;
                }
            }
            let ends = c == '\n' || (c == '\r' && chars.get(index + 1) != Some(&'\n'));
            line += u32::from(ends);
            index += 1;
        }
        index
    };
    let (a, b) = (place(range.start), place(range.end));
    let (a, b) = (a.min(b), a.max(b));
    chars[..a].iter().chain(&change.text.chars().collect::<Vec<_>>()).chain(&chars[b..]).collect()
}

fn texts() -> impl Strategy<Value = String> {
    let bits = prop::sample::select(vec![
        "\n",
        "\n",
        "\r\n",
        "\r",
        "😀",
        "e\u{301}",
        "漢字",
        "\u{2028}",
        "\u{feff}",
        "\0",
        " ",
        "    ",
        "\t",
        "fn f() {",
        "}",
        "let x = \"",
        "\";",
        "// c",
        "/*",
        "*/",
        "(",
        ")",
        "match y {",
        "=> 1,",
        "struct S;",
        "r#\"",
        "a",
        "👩‍👩‍👧",
    ]);
    prop::collection::vec(bits, 0..24).prop_map(|bits| bits.concat())
}

fn changes() -> impl Strategy<Value = Change> {
    let number = prop_oneof![9 => 0u32..12, 1 => Just(u32::MAX), 1 => 0u32..200];
    let place = (number.clone(), number).prop_map(|(line, character)| at(line, character));
    let range = (place.clone(), place).prop_map(|(start, end)| Range { start, end });
    (prop::option::weighted(0.93, range), texts()).prop_map(|(range, text)| Change { range, text })
}

/// Lines that are right in any order, for each language; edits of whole lines keep a text right.
const LINES: &[(&str, &[&str])] = &[
    (
        "rust",
        &[
            "fn f(x: &str) -> u8 { x.len() as u8 }",
            "// 漢字 😀",
            "struct S { a: u8 }",
            "const C: &str = \"é\";",
        ],
    ),
    (
        "python",
        &[
            "def f(x): return {'a': x}",
            "# 漢字 😀",
            "class C: a = 1",
            "x = \"\"\"é\"\"\"",
            "for i in x: print(i)",
        ],
    ),
    (
        "cpp",
        &[
            "int f(int x) { return x + 1; }",
            "// 漢字 😀",
            "#define A 1",
            "struct S { int a; };",
            "const char *s = \"é\";",
        ],
    ),
    (
        "javascript",
        &["function f(x) { return `é${x}`; }", "/* 漢字 😀 */", "class C { a() {} }", "let y = /a+/;"],
    ),
    ("ruby", &["def f(x) = x", "# 漢字 😀", "x = \"é#{1 + 1}\"", "class C; end"]),
    ("go", &["func f(x int) int { return x }", "// 漢字 😀", "var s = `é`", "type T struct { a int }"]),
];

/// One step of a session: which line, and what is done there.
#[derive(Debug, Clone)]
enum Step {
    /// Types a right line before this one.
    Insert(prop::sample::Index, prop::sample::Index),
    /// Deletes this line.
    Delete(prop::sample::Index),
    /// Types something into this line, has the tree made, and takes it back.
    Slip(prop::sample::Index, u32, &'static str),
}

fn steps() -> impl Strategy<Value = Step> {
    let any = any::<prop::sample::Index>;
    let slip = prop::sample::select(vec!["{", "}", "(", "\"", "漢", "\n", "\r", "fn (", " ", "/*", "😀"]);
    prop_oneof![
        3 => (any(), any()).prop_map(|(line, text)| Step::Insert(line, text)),
        1 => any().prop_map(Step::Delete),
        3 => (any(), 0u32..30, slip).prop_map(|(line, character, text)| Step::Slip(line, character, text)),
    ]
}

fn encodings() -> impl Strategy<Value = Encoding> {
    prop::sample::select(vec![Encoding::Utf16, Encoding::Utf8, Encoding::Utf32])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn random_edits_agree_with_a_naive_text(
        before in texts(),
        script in prop::collection::vec(prop::collection::vec(changes(), 0..4), 1..8),
        encoding in encodings(),
    ) {
        let documents = Documents::new();
        documents.open(URI, "plaintext", 0, &before);
        let mut model = before;
        for (version, changes) in script.iter().enumerate() {
            documents.change(URI, version as i32, changes, encoding);
            for change in changes {
                model = naive(&model, change, encoding);
            }
            let snapshot = documents.snapshot(URI).unwrap();
            prop_assert_eq!(snapshot.text.to_string(), model.as_str());
            prop_assert_eq!(snapshot.version, version as i32);
        }
    }

    #[test]
    fn an_edited_tree_is_the_tree_of_the_text(
        (language, lines) in prop::sample::select(LINES),
        ending in prop::sample::select(vec!["\n", "\r\n"]),
        script in prop::collection::vec((steps(), any::<bool>()), 1..16),
    ) {
        let documents = Documents::new();
        documents.open("untitled:x", language, 0, "");
        let edit = |change| documents.change("untitled:x", 0, &[change], Encoding::Utf16);
        let now = || documents.snapshot("untitled:x").unwrap();
        for (step, ask) in script {
            let text = now().text;
            let line = |index: prop::sample::Index| index.index(text.len_lines()) as u32;
            match step {
                Step::Insert(index, with) => {
                    let place = (line(index), 0);
                    edit(change(place, place, &format!("{}{ending}", with.get(lines))));
                }
                Step::Delete(index) => {
                    edit(change((line(index), 0), (line(index) + 1, 0), ""));
                }
                Step::Slip(index, character, slip) => {
                    let range = Range { start: at(line(index), character), end: at(line(index), character) };
                    let offset = offsets_of(&text, range, Encoding::Utf16).start;
                    edit(Change { range: Some(range), text: slip.into() });
                    if ask {
                        now().tree();
                    }
                    let back = text.to_string();
                    let typed = Range {
                        start: position_of(&now().text, offset, Encoding::Utf16),
                        end: position_of(&now().text, offset + slip.chars().count(), Encoding::Utf16),
                    };
                    edit(Change { range: Some(typed), text: String::new() });
                    if now().text != back {
                        // A break that joined one beside it cannot be taken back by position.
                        edit(whole(&back));
                    }
                }
            }
            if ask {
                let snapshot = now();
                let fresh = Snapshot::new("untitled:x", language, &snapshot.text.to_string());
                let (edited, fresh) = (snapshot.tree().unwrap(), fresh.tree().unwrap());
                prop_assert!(!fresh.root_node().has_error(), "{}", snapshot.text);
                prop_assert_eq!(nodes(&edited), nodes(&fresh), "{:?}", snapshot.text.to_string());
            }
        }
    }

    /// In a text with errors the parser may divide it differently after an edit than afresh, but what
    /// it says about places must still be true.
    #[test]
    fn the_nodes_of_an_edited_tree_are_where_they_say(
        before in texts(),
        script in prop::collection::vec((changes(), any::<bool>()), 1..8),
        language in prop::sample::select(vec!["rust", "python", "cpp", "javascript", "html"]),
    ) {
        let documents = Documents::new();
        documents.open("untitled:x", language, 0, &before);
        for (change, ask) in script {
            documents.change("untitled:x", 0, &[change], Encoding::Utf16);
            if !ask {
                continue;
            }
            let snapshot = documents.snapshot("untitled:x").unwrap();
            for (_, _, range) in nodes(&snapshot.tree().unwrap()) {
                prop_assert!(range.end_byte <= snapshot.text.len_bytes());
                prop_assert_eq!(range.start_point, point(&snapshot.text, range.start_byte, true));
                prop_assert_eq!(range.end_point, point(&snapshot.text, range.end_byte, true));
            }
        }
    }
}

/// Every node of a tree with its depth and where it begins and ends, in bytes and in rows and columns.
fn nodes(tree: &Tree) -> Vec<(u32, String, tree_sitter::Range)> {
    let mut cursor = tree.walk();
    let mut all = Vec::new();
    loop {
        let node = cursor.node();
        all.push((cursor.depth(), node.kind().to_owned(), node.range()));
        if cursor.goto_first_child() || cursor.goto_next_sibling() {
            continue;
        }
        loop {
            if !cursor.goto_parent() {
                return all;
            }
            if cursor.goto_next_sibling() {
                break;
            }
        }
    }
}
