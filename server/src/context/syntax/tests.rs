//! Each table is one rule: add a case by adding a line. `$0` is the cursor.

use super::*;

/// A document in the language with this identifier, and the place of `$0` in it.
pub(crate) fn at_cursor(id: &str, text: &str) -> (Snapshot, usize) {
    let (before, after) = text.split_once("$0").expect("a cursor");
    (Snapshot::new("untitled:x", id, &format!("{before}{after}")), before.chars().count())
}

/// The language with a grammar, and the text without one: both must find what stands in the table.
#[track_caller]
fn headers(id: &str, text: &str) -> Vec<String> {
    let (document, cursor) = at_cursor(id, text);
    let header = |scope: Scope| {
        let header = document.text.slice(scope.header).to_string();
        format!("{:?} {}", scope.kind, header.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    enclosing_scopes(&document, cursor).into_iter().map(header).collect()
}

#[test]
fn scopes_around_the_cursor() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("rust", "$0", &[]),
        ("rust", "fn f() {}\n$0", &[]),
        ("rust", "fn f() {$0}", &["Function fn f() {}"]),
        ("rust", "fn f($0) {}", &[]),
        ("rust", "fn f() {\n    $0\n}\n", &["Function fn f() {"]),
        (
            "rust",
            "impl A {\n    fn f(\n        &self,\n    ) -> u8 {\n        $0\n    }\n}\n",
            &["Function fn f( &self, ) -> u8 {", "Module impl A {"],
        ),
        ("rust", "fn f() {\n    if a {\n        $0\n    }\n}\n", &["Function fn f() {"]),
        (
            "rust",
            "mod m {\n    struct S {\n        a: u8,\n        $0\n    }\n}\n",
            &["Type struct S {", "Module mod m {"],
        ),
        // Half written.
        ("rust", "fn f() {\n    let x = $0\n}\n", &["Function fn f() {"]),
        ("rust", "fn f() {\n    let x = \n    $0", &["Function fn f() {"]),
        (
            "rust",
            "impl A {\n    fn f(&self) {\n        g(a, $0\n",
            &["Function fn f(&self) {", "Module impl A {"],
        ),
        (
            "rust",
            "impl A {\n    fn f(&self) {\n        let s = S {\n            $0",
            &["Function fn f(&self) {", "Module impl A {"],
        ),
        ("rust", "fn f() {\n    match x {\n        A =>$0\n", &["Function fn f() {"]),
        ("python", "def f():\n    $0", &["Function def f():"]),
        ("python", "def f():\n$0", &["Function def f():"]),
        ("python", "def f():\n    x = 1\n    $0\n", &["Function def f():"]),
        ("python", "def f():\n    x = 1\n\n$0\n", &[]),
        ("python", "class C:\n    def f(self):\n        x = 1\n\n    $0\n", &["Type class C:"]),
        (
            "python",
            "class C:\n    def f(\n        self,\n    ):\n        return $0\n",
            &["Function def f( self, ):", "Type class C:"],
        ),
        (
            "python",
            "def f():\n    for x in y:\n        if x(\n            $0\n\ndef g(): pass\n",
            &["Function def f():"],
        ),
        (
            "typescript",
            "export class C {\n  f(a: string): void {\n    $0\n  }\n}\n",
            &["Function f(a: string): void {", "Type export class C {"],
        ),
        ("typescript", "const f = async (a) => {\n  $0\n};\n", &["Function const f = async (a) => {"]),
        ("javascript", "function f() {\n  return g(\n    $0\n", &["Function function f() {"]),
        ("go", "func (s *S) F() error {\n\t$0\n}\n", &["Function func (s *S) F() error {"]),
        ("go", "type T struct {\n\tA int\n\t$0\n}\n", &["Type type T struct {"]),
        ("c", "int main(void)\n{\n    $0\n}\n", &["Function int main(void)"]),
        (
            "cpp",
            "namespace n {\nclass C {\npublic:\n  int f() {\n    $0\n  }\n};\n}\n",
            &["Function int f() {", "Type class C {", "Module namespace n {"],
        ),
        (
            "java",
            "class C {\n    void f() {\n        int x = $0\n    }\n}\n",
            &["Function void f() {", "Type class C {"],
        ),
        (
            "csharp",
            "namespace N {\n  class C {\n    void F()\n    {\n      $0\n    }\n  }\n}\n",
            &["Function void F()", "Type class C {", "Module namespace N {"],
        ),
        ("ruby", "class C\n  def f\n    $0\n  end\nend\n", &["Function def f", "Type class C"]),
        (
            "ruby",
            "module M\n  def f(x)\n    x.each do |y|\n      $0\n",
            &["Function def f(x)", "Module module M"],
        ),
        (
            "php",
            "<?php\nclass C {\n    function f($a) {\n        $0\n    }\n}\n",
            &["Function function f($a) {", "Type class C {"],
        ),
        ("lua", "function f(x)\n  $0\nend\n", &["Function function f(x)"]),
        ("shellscript", "f() {\n  $0\n}\n", &["Function f() {"]),
        // Without a grammar.
        (
            "kotlin",
            "class C {\n    fun f(x: Int): Int {\n        if (x) {\n            $0\n",
            &["Function fun f(x: Int): Int {", "Type class C {"],
        ),
        ("plaintext", "  a\n    b\n      $0", &[]),
    ];
    for (id, text, want) in cases {
        assert_eq!(&headers(id, text), want, "{id}: {text}");
    }
}

#[test]
fn the_innermost_block() {
    type Want = Option<(&'static str, &'static str, usize)>;
    let cases: &[(&str, &str, Want)] = &[
        (
            "rust",
            "fn f() {\n    if a {\n        b;$0\n    }\n}\n",
            Some(("    if a {", "\n        b;\n    ", 4)),
        ),
        ("rust", "fn f() {\n    a;\n    $0\n}\n", Some(("fn f() {", "\n    a;\n    \n", 0))),
        (
            "rust",
            "fn f() {\n    x.map(|y| {\n        $0\n    });\n}\n",
            Some(("    x.map(|y| {", "\n        \n    ", 4)),
        ),
        ("python", "def f():\n    for a in b:\n        c\n        $0\n", Some(("    for a in b:", "c", 4))),
        ("javascript", "for (;;) { $0 }", Some(("for (;;) {  }", "  ", 0))),
        ("go", "func f() {\n\tfor {\n\t\t$0\n\t}\n}\n", Some(("\tfor {", "\n\t\t\n\t", 1))),
        ("javascript", "while (a &&\n    b) {\n  $0\n}\n", Some(("while (a &&\n    b) {", "\n  \n", 0))),
        ("rust", "$0", None),
    ];
    for (id, text, want) in cases {
        let (document, cursor) = at_cursor(id, text);
        let block = enclosing_block(&document, cursor);
        let slice = |chars: std::ops::Range<usize>| document.text.slice(chars).to_string();
        let got = block.map(|block| (slice(block.header), slice(block.body), block.indent));
        let want = want.map(|(header, body, indent)| (header.to_owned(), body.to_owned(), indent));
        assert_eq!(got, want, "{id}: {text}");
    }
}

#[test]
fn comments_and_strings() {
    use Literal::{Comment, String};
    let cases: &[(&str, &str, Option<Literal>)] = &[
        ("rust", "let $0x = 1;", None),
        ("rust", "// a$0", Some(Comment)),
        ("rust", "// a$0\nfn f() {}", Some(Comment)),
        ("rust", "/// a$0\nfn f() {}", Some(Comment)),
        ("rust", "// a\n$0fn f() {}", None),
        ("rust", "$0// a", None),
        ("rust", "/* a $0 */", Some(Comment)),
        ("rust", "/* a */$0", None),
        ("rust", "fn f() { g(\"a$0b\"); }", Some(String)),
        ("rust", "fn f() { g(\"ab\"$0); }", None),
        ("rust", "fn f() { g($0\"ab\"); }", None),
        ("rust", "fn f() { let s = \"abc$0\n}", Some(String)),
        ("rust", "fn f<'a>(x: &'a $0", None),
        ("rust", "fn f() { let s = \"a\\\"$0", Some(String)),
        ("python", "x = f\"a {$0b} c\"", None),
        ("python", "x = f\"a {b} $0c\"", Some(String)),
        ("python", "def f():\n    \"\"\"Adds $0\n    \"\"\"\n", Some(String)),
        ("python", "x = 1  # why$0", Some(Comment)),
        ("python", "print('$0", Some(String)),
        ("javascript", "let a = `b ${$0c}`;", None),
        ("javascript", "let a = `b $0${c}`;", Some(String)),
        ("javascript", "let a = b / c; let d = 'x$0';", Some(String)),
        ("shellscript", "echo \"$0\"", Some(String)),
        ("html", "<!-- $0 -->", Some(Comment)),
        ("css", "a { /* $0 */ }", Some(Comment)),
        ("lua", "-- $0", Some(Comment)),
        ("json", "{\"a$0\": 1}", Some(String)),
        ("plaintext", "say \"$0", Some(String)),
        ("plaintext", "say \"a\" $0", None),
    ];
    for (id, text, want) in cases {
        let (document, cursor) = at_cursor(id, text);
        assert_eq!(in_comment_or_string(&document, cursor), *want, "{id}: {text}");
    }
}

#[test]
fn empty_bodies() {
    let cases: &[(&str, &str, bool)] = &[
        ("rust", "fn f() {$0}", true),
        ("rust", "fn f() {\n    $0\n}\n", true),
        ("rust", "fn f() {\n    // Adds.\n    $0\n}\n", true),
        ("rust", "fn f() { // Adds.\n    $0\n}\n", true),
        ("rust", "fn f() {\n    $0", true),
        ("rust", "fn f() {\n    $0\n\nfn g() {}\n", true),
        ("rust", "fn f() {\n    $0\n    g();\n}\n", false),
        ("rust", "fn f() {\n    g();\n    $0\n}\n", false),
        ("rust", "fn f($0) {}", false),
        ("rust", "fn f() {\n    g(\n        $0\n    )\n}\n", false),
        ("rust", "fn f() { g(\"{$0}\") }", false),
        ("rust", "$0", false),
        ("python", "def f():\n    $0", true),
        ("python", "def f():\n$0", true),
        ("python", "def f():\n    # Adds.\n    $0\n\nx = 1\n", true),
        ("python", "def f():$0\n", true),
        ("python", "def f():\n    $0\n    return 1\n", false),
        ("python", "x = {'a':$0}", false),
        ("python", "class C:\n    def f(self):\n        $0\n\n    def g(self): pass\n", true),
        ("c", "int main(void)\n{\n    $0\n}\n", true),
        ("ruby", "def f(x)\n  $0\nend\n", true),
        ("ruby", "def f(x)\n  y\n  $0\nend\n", false),
        ("ruby", "x.each do |y|\n  $0\nend\n", true),
        ("lua", "if x then\n  $0\nend\n", true),
        ("lua", "function f(x)\n  $0\nend\n", true),
        ("shellscript", "for x in y; do\n  $0\ndone\n", true),
        ("shellscript", "for x in y; do\n  z\n  $0\ndone\n", false),
        ("kotlin", "fun f() {\n    $0\n}\n", true),
        ("kotlin", "fun f() {\n    g()\n    $0\n}\n", false),
    ];
    for (id, text, want) in cases {
        let (document, cursor) = at_cursor(id, text);
        assert_eq!(node_is_empty_body(&document, cursor), *want, "{id}: {text}");
    }
}

#[test]
fn unfinished_statements() {
    let cases: &[(&str, &str, bool)] = &[
        ("rust", "fn f() {\n    $0\n}\n", true),
        ("rust", "fn f() {\n    let x$0\n}\n", true),
        ("rust", "fn f() {\n    let x = $0\n}\n", true),
        ("rust", "fn f() {\n    let x = 1$0\n}\n", true),
        ("rust", "fn f() {\n    let x = 1;$0\n}\n", false),
        ("rust", "fn f() {\n    let x = 1;\n    $0\n}\n", false),
        ("rust", "fn f() {\n    g(a, $0);\n}\n", true),
        ("rust", "fn f() {\n    g(a,\n      $0\n}\n", true),
        ("rust", "fn f() {\n    let x = $0 + 1;\n}\n", true),
        ("rust", "fn f() {\n    x\n        .$0\n}\n", true),
        ("rust", "fn f() {\n    let x =\n        $0\n}\n", true),
        ("rust", "// Adds$0", true),
        ("python", "x = f()$0\n", false),
        ("python", "x = f($0\n", true),
        ("python", "x = fo$0\n", true),
        ("python", "x =$0\n", true),
        ("python", "x = 1\n$0", false),
        ("python", "return$0", true),
        ("python", "if x:$0\n", true),
        ("python", "if x:\n    y\n    $0\n", false),
        ("javascript", "f(x)$0\n", false),
        ("javascript", "f(x);$0\n", false),
        ("javascript", "const y = a &&$0\n", true),
        ("javascript", "i++$0\n", false),
        ("javascript", "f({\n  a: 1,\n  $0\n})\n", true),
        ("go", "x := f(a)$0\n", false),
        ("go", "x := f(\"(\")$0\n", false),
        ("kotlin", "val x = $0\n", true),
    ];
    for (id, text, want) in cases {
        let (document, cursor) = at_cursor(id, text);
        assert_eq!(statement_incomplete_at(&document, cursor), *want, "{id}: {text}");
    }
}

/// Wherever the cursor is and whatever the text, there is an answer, and its places are in the text.
#[test]
fn every_cursor_in_every_half_text_gets_an_answer() {
    let texts = [
        ("rust", "impl A {\n    fn f(&self, s: &str) -> u8 {\n        let x = [\"é{\", '}'];\n    }\r\n}\n"),
        ("python", "class C:\n\tdef f(self, x):\n\t\treturn {'😀': [x\n\n\n  y = (1,\n"),
        ("javascript", "const f = (a) => {\n  return `x ${a.map(b => { c })} 漢`;\n};\n}}}}"),
        ("ruby", "module M\n  def f(x) = x\n  x.each do |y| \"#{y}\"\nend\n"),
        ("plaintext", "a {\n  b (\n    c: [\n\n}\n"),
    ];
    for (id, text) in texts {
        let chars: Vec<char> = text.chars().collect();
        for length in 0..=chars.len() {
            let half: String = chars[..length].iter().collect();
            let document = Snapshot::new("untitled:x", id, &half);
            for cursor in [length, length / 2, length + 10] {
                for scope in
                    enclosing_scopes(&document, cursor).into_iter().chain(enclosing_block(&document, cursor))
                {
                    assert!(scope.header.start <= scope.header.end, "{id} {half:?} {scope:?}");
                    assert!(scope.body.start <= scope.body.end, "{id} {half:?} {scope:?}");
                    assert!(scope.header.end.max(scope.body.end) <= length, "{id} {half:?} {scope:?}");
                }
                in_comment_or_string(&document, cursor);
                statement_incomplete_at(&document, cursor);
            }
        }
    }
}
