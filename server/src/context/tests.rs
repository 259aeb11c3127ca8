//! Each table is one rule: add a case by adding a line.

use super::syntax::tests::at_cursor;
use super::*;

fn texts(excerpts: &[Excerpt]) -> Vec<&str> {
    excerpts.iter().map(|excerpt| excerpt.text.as_str()).collect()
}

/// Gathers for a text with `$0` at the cursor and nothing visible but the cursor's line.
fn gathered(id: &str, text: &str) -> Context {
    let (document, cursor) = at_cursor(id, text);
    let line = document.text.char_to_line(cursor);
    gather(&document, cursor, &[], lines::span(&document.text, line, line))
}

#[test]
fn imports_that_are_not_visible() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "rust",
            "use a::b;\nuse c::{\n    d,\n};\nmod e;\nfn f() { $0 }\n",
            &["use a::b;", "use c::{\n    d,\n};", "mod e;"],
        ),
        ("rust", "use a;$0\nuse b;\n", &["use b;"]),
        ("rust", "mod tests {\n    use super::*;\n    $0\n}\n", &["    use super::*;"]),
        (
            "python",
            "import os, sys\nfrom a import (\n    b,\n)\n\n$0\n",
            &["import os, sys", "from a import (\n    b,\n)"],
        ),
        ("python", "if True:\n    import a\n\n$0", &["    import a"]),
        (
            "typescript",
            "import { a } from 'b';\nimport c = require('d');\n$0",
            &["import { a } from 'b';", "import c = require('d');"],
        ),
        ("javascript", "const a = require('b');\nconst c = 1;\n$0", &["const a = require('b');"]),
        ("go", "package a\n\nimport (\n\t\"b\"\n)\n\n$0", &["package a", "import (\n\t\"b\"\n)"]),
        ("c", "#include <a.h>\n#include \"b.h\"\n\n$0", &["#include <a.h>", "#include \"b.h\""]),
        ("cpp", "#include <a>\nusing namespace b;\n$0", &["#include <a>", "using namespace b;"]),
        ("java", "package a;\nimport b.C;\n$0", &["package a;", "import b.C;"]),
        ("csharp", "using A;\nusing static B.C;\n$0", &["using A;", "using static B.C;"]),
        (
            "ruby",
            "require 'a'\nrequire_relative \"b\"\nx = 1\n$0",
            &["require 'a'", "require_relative \"b\""],
        ),
        ("php", "<?php\nuse A\\B;\nrequire_once 'c.php';\n$0", &["use A\\B;", "require_once 'c.php';"]),
        ("lua", "local a = require(\"b\")\nlocal c = 1\n$0", &["local a = require(\"b\")"]),
        ("shellscript", "source a.sh\n. b.sh\necho source\n$0", &["source a.sh", ". b.sh"]),
        ("css", "@import url(a.css);\n$0", &["@import url(a.css);"]),
        ("kotlin", "import a.b\n\nfun f() {\n    $0\n}\n", &["import a.b"]),
    ];
    for (id, text, want) in cases {
        assert_eq!(texts(&gathered(id, text).imports), *want, "{id}: {text}");
    }
}

#[test]
fn signatures_of_what_else_is_defined() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "rust",
            "pub fn f(a: u8) -> u8 { a }\n\n$0\n\nconst C: u8 = 1;\n",
            &["pub fn f(a: u8) -> u8", "const C: u8 = 1;"],
        ),
        (
            "rust",
            "struct S {\n    a: u8,\n}\nimpl S {\n    fn f(\n        &self,\n    ) -> u8\n    {\n        1\n    }\n\n    fn g(&self) {$0}\n}\n",
            &["struct S", "    fn f(\n        &self,\n    ) -> u8"],
        ),
        ("rust", "fn f() {\n    fn inner() {}\n}\n$0", &["fn f()"]),
        (
            "python",
            "class C(B):\n    def f(self, x) -> int:\n        return 1\n\n    def g(self):\n        $0\n\nX = [\n  1,\n]\n",
            &["    def f(self, x) -> int:", "X = ["],
        ),
        (
            "typescript",
            "export interface A { b: string }\nexport const f = (a: A) => {\n  return a;\n};\n$0",
            &["export interface A", "export const f = (a: A) => {"],
        ),
        (
            "go",
            "type T struct {\n\tA int\n}\n\nfunc (t *T) F() error {\n\treturn nil\n}\n$0",
            &["type T", "func (t *T) F() error"],
        ),
        (
            "c",
            "int f(int a);\nstruct s { int b; };\nstatic int *g(void)\n{\n    return 0;\n}\n$0",
            &["int f(int a);", "struct s", "static int *g(void)"],
        ),
        (
            "java",
            "class C {\n    private int a;\n    C(int a) { this.a = a; }\n    int f() {\n        $0\n    }\n}\n",
            &["    private int a;", "    C(int a)"],
        ),
        ("ruby", "class C\n  def f(x)\n    x\n  end\n\n  def g\n    $0\n  end\nend\n", &["  def f(x)"]),
        ("lua", "function m.f(a)\n  return a\nend\n$0", &["function m.f(a)"]),
    ];
    for (id, text, want) in cases {
        assert_eq!(texts(&gathered(id, text).outline), *want, "{id}: {text}");
    }
}

#[test]
fn scopes_that_begin_before_what_is_visible() {
    let (document, cursor) =
        at_cursor("rust", "impl A {\n    fn f(&self) {\n        a;\n        $0\n    }\n}\n");
    let from = |line: usize| {
        let start = document.text.line_to_char(line);
        let context = gather(&document, cursor, &[], start..document.text.len_chars());
        context.scopes.into_iter().map(|scope| scope.text).collect::<Vec<_>>()
    };
    assert_eq!(from(0), Vec::<String>::new());
    assert_eq!(from(1), ["impl A {"]);
    assert_eq!(from(2), ["impl A {", "    fn f(&self) {"]);
}

#[test]
fn a_long_outline_keeps_what_is_near() {
    let text: String = (0..1000).map(|n| format!("fn f{n}() {{}}\n")).collect();
    let document = Snapshot::new("untitled:x", "rust", &text);
    let middle = document.text.line_to_char(500);
    let outline = gather(&document, middle, &[], middle..middle + 100).outline;
    assert_eq!(outline.len(), LONGEST_OUTLINE);
    assert!(texts(&outline).contains(&"fn f499()") && texts(&outline).contains(&"fn f510()"));
    let end = document.text.len_chars();
    let outline = gather(&document, end, &[], end..end).outline;
    assert_eq!(texts(&outline).last(), Some(&"fn f999()"));
    assert_eq!(outline.len(), LONGEST_OUTLINE);
}

const SHAPES: &str = "\
/// A round thing.
pub struct Circle {
    pub radius: f64,
    pub center: Point,
}

impl Circle {
    /// Its size on paper.
    pub fn surface(&self) -> f64 {
        let squared = self.radius * self.radius;
        let factor = std::f64::consts::PI;
        let surface = squared * factor;
        surface
    }
}
";

const PARSER: &str = "\
pub fn tokenize(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut lexer = Lexer::new(source);
    while let Some(token) = lexer.next() {
        tokens.push(token);
    }
    tokens
}
";

fn shapes() -> Snapshot {
    Snapshot::new("file:///p/src/shapes.rs", "rust", SHAPES)
}

fn parser() -> Snapshot {
    Snapshot::new("file:///p/src/parser.rs", "rust", PARSER)
}

/// The first line of each piece for a text with `$0`, the best first.
fn pieces(text: &str, others: &[Snapshot]) -> Vec<(f32, String)> {
    let (document, cursor) = at_cursor("rust", text);
    let pieces = gather(&document, cursor, others, 0..document.text.len_chars()).pieces;
    let first = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    pieces.into_iter().map(|piece| (piece.score, first(&piece.text))).collect()
}

fn first_lines(text: &str, others: &[Snapshot]) -> Vec<String> {
    pieces(text, others).into_iter().map(|(_, line)| line).collect()
}

#[test]
fn pieces_that_define_what_is_used_come_first() {
    let text = "fn f(circle: Circle) {\n    let a = circle.surface();\n    $0\n}\n";
    let lines = first_lines(text, &[parser(), shapes()]);
    assert_eq!(lines, ["impl Circle {", "/// A round thing."]);
    let text = "fn f() {\n    for token in tokenize(text) {\n        $0\n    }\n}\n";
    assert_eq!(first_lines(text, &[shapes(), parser()]), ["pub fn tokenize(source: &str) -> Vec<Token> {"]);
}

#[test]
fn an_import_makes_a_document_more_relevant() {
    let text = "fn f(lexer: Lexer) { $0 }\n";
    let plain = pieces(text, &[parser()]);
    let imported = pieces(&format!("use crate::parser;\n{text}"), &[parser()]);
    assert!(imported[0].0 > plain[0].0, "{imported:?} {plain:?}");
}

#[test]
fn nothing_in_common_gives_no_pieces() {
    assert_eq!(first_lines("fn unrelated() { $0 }\n", &[parser(), shapes()]), Vec::<String>::new());
    assert_eq!(first_lines("$0", &[parser(), shapes()]), Vec::<String>::new());
    assert_eq!(first_lines("tokenize$0", &[]), Vec::<String>::new());
}

#[test]
fn what_is_visible_or_shown_already_is_not_shown_again() {
    let again = Snapshot::new("file:///p/src/copy.rs", "rust", PARSER);
    let text = "fn f() { tokenize(lexer); $0 }\n";
    assert_eq!(first_lines(text, &[parser(), again.clone()]).len(), 1);
    assert_eq!(first_lines(&format!("{PARSER}\n{text}"), &[parser(), again]), Vec::<String>::new());
}

#[test]
fn the_document_itself_is_no_piece() {
    let (document, cursor) = at_cursor("rust", "fn f() { tokenize(lexer); $0 }\n");
    let window = 0..document.text.len_chars();
    assert_eq!(gather(&document, cursor, std::slice::from_ref(&document), window).pieces, []);
}

#[test]
fn pieces_stay_while_a_word_and_lines_are_typed() {
    let others = [parser(), shapes()];
    let start = "fn f(circle: Circle) {\n    let a = circle.surface();\n    ";
    let want = pieces(&format!("{start}$0\n}}\n"), &others);
    for typed in ["t", "tok", "tokeniz", "tokenize", "zzz\n    yyy\n    "] {
        assert_eq!(pieces(&format!("{start}{typed}$0\n}}\n"), &others), want, "{typed}");
    }
    let reversed = [shapes(), parser()];
    assert_eq!(pieces(&format!("{start}$0\n}}\n"), &reversed), want, "the order of the others");
}

#[test]
fn pieces_are_whole_lines_of_their_documents() {
    let long: String = (0..300).map(|n| format!("    let circle{n} = surface({n}); // é漢😀\r\n")).collect();
    let other = Snapshot::new("file:///p/long.rs", "rust", &format!("fn surface() {{\r\n{long}}}\r\n"));
    let (document, cursor) =
        at_cursor("rust", "fn f() {\n    surface(circle7, circle250, circle100);\n    $0\n}\n");
    let pieces = gather(&document, cursor, std::slice::from_ref(&other), 0..10).pieces;
    assert!(pieces.len() > 1);
    for piece in pieces {
        assert!(piece.lines.len() <= facts::LONGEST, "{:?}", piece.lines);
        assert_eq!(piece.chars, lines::span(&other.text, piece.lines.start, piece.lines.end - 1));
        assert_eq!(other.text.slice(piece.chars.clone()), piece.text);
        assert!(!piece.text.ends_with(['\r', '\n']));
    }
}

#[test]
fn every_line_that_says_something_is_in_one_chunk() {
    let sources = [
        ("rust", SHAPES),
        ("rust", PARSER),
        ("python", "\n\nx = 1\n\n\ndef f():\n    pass\n"),
        ("plaintext", "a\n\nb\n  c\n\n\nd"),
    ];
    for (id, text) in sources {
        let document = Snapshot::new("untitled:x", id, text);
        let facts = Facts::of(&document);
        let chunks = facts.chunks(&document);
        for line in 0..document.text.len_lines() {
            let holding = chunks.iter().filter(|chunk| chunk.lines.contains(&line)).count();
            let want = usize::from(!lines::is_blank(&document.text, line));
            assert!(holding == want || (holding == 1 && want == 0), "{id} line {line}: {holding}");
        }
    }
}

#[test]
fn facts_belong_to_one_revision() {
    use crate::documents::Documents;
    use crate::text::{Change, Encoding};
    let documents = Documents::new();
    documents.open("file:///a.rs", "rust", 1, "fn f() {}");
    let first = documents.snapshot("file:///a.rs").unwrap();
    assert!(std::sync::Arc::ptr_eq(
        &Facts::of(&first),
        &Facts::of(&documents.snapshot("file:///a.rs").unwrap())
    ));
    let change = Change { range: None, text: "fn g() {}".into() };
    documents.change("file:///a.rs", 1, &[change], Encoding::Utf16);
    let second = documents.snapshot("file:///a.rs").unwrap();
    assert_eq!(Facts::of(&second).definitions()[0].name(&second.text), "g");
    assert_eq!(Facts::of(&first).definitions()[0].name(&first.text), "f");
}

#[test]
fn a_window_or_cursor_outside_of_the_text_is_clamped() {
    let document = Snapshot::new("untitled:x", "rust", "use a;\nfn f() {}\n");
    let context = gather(&document, 10_000, &[shapes()], 5_000..10_000);
    assert_eq!(texts(&context.imports), ["use a;"]);
    let empty = Snapshot::new("untitled:x", "rust", "");
    assert_eq!(gather(&empty, 1, &[shapes()], 0..1), Context::default());
}

#[test]
fn what_was_edited_lately_comes_first() {
    use crate::documents::Documents;
    use crate::text::{Change, Encoding, Position, Range as Place};
    let documents = Documents::new();
    let functions = ["first", "second", "third"].map(|name| {
        format!("pub fn {name}() {{\n    let shared = 1;\n    let other = 2;\n    let {name}_one = 3;\n    print(other);\n}}\n\n")
    });
    documents.open("file:///p/many.rs", "rust", 1, &functions.concat());
    let best = || {
        let (document, cursor) = at_cursor("rust", "fn f() {\n    let shared = 2;\n    $0\n}\n");
        let pieces = gather(&document, cursor, &documents.others("-"), 0..20).pieces;
        pieces
            .into_iter()
            .map(|piece| piece.text.lines().next().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(best(), ["pub fn first() {", "pub fn second() {", "pub fn third() {"]);
    let at = Position { line: 17, character: 10 };
    let change = Change { range: Some(Place { start: at, end: at }), text: "x".into() };
    documents.change("file:///p/many.rs", 2, &[change], Encoding::Utf16);
    assert_eq!(best(), ["pub fn third() {", "pub fn first() {", "pub fn second() {"]);
}
