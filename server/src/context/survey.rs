//! What a document brings in and what it defines.

use std::ops::Range;

use ropey::Rope;
use tree_sitter::{Node, TreeCursor};

use super::grammar::{Definition, Grammar, Role};
use super::lines;
use crate::documents::Snapshot;
use crate::language::{Kind, Spec};

/// What a document brings in and what it defines, in order of place.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The imports, each on whole lines, in characters.
    pub imports: Vec<Range<usize>>,
    /// The definitions, outside of functions.
    pub definitions: Vec<Defined>,
}

/// A definition. Its places are bytes, as the parser gives them: most are never asked for.
#[derive(Debug)]
pub(super) struct Defined {
    pub kind: Kind,
    /// Where it begins.
    pub start: usize,
    /// Where it ends; unknown without a tree.
    pub end: Option<usize>,
    /// Where its body begins.
    body: Option<usize>,
    name: Option<Range<usize>>,
}

impl Defined {
    /// Its name; `List<T>` is `List`. Empty where there is none.
    pub(super) fn name(&self, text: &Rope) -> String {
        const LONGEST: usize = 100;
        let Some(name) = self.name.clone() else { return String::new() };
        let chars = text.byte_slice(name.start..name.end.min(text.len_bytes())).chars().take(LONGEST);
        chars.skip_while(|c| !lines::is_word(*c)).take_while(|c| lines::is_word(*c)).collect()
    }

    /// The header without the body, on one to a few lines; in characters.
    pub(super) fn signature(&self, text: &Rope) -> Option<Range<usize>> {
        const WIDEST: usize = 400;
        let body = self.body.map(|body| text.byte_to_char(body));
        let header = header(text, text.byte_to_char(self.start), body);
        let end = match body {
            Some(body) if self.kind != Kind::Value => header.end.min(body),
            _ => header.end,
        };
        let white = text.slice(header.start..end).chars_at(end - header.start).reversed();
        let end = end - white.take_while(|c| c.is_whitespace()).count();
        (header.start < end && end - header.start <= WIDEST).then_some(header.start..end)
    }
}

/// Reads a document. Without a tree this finds imports and what begins with a telling word.
pub(super) fn survey(document: &Snapshot) -> Survey {
    let (text, spec) = (&document.text, document.language.spec());
    let Some((tree, grammar)) = document.tree().zip(Grammar::of(document.language)) else {
        return by_lines(text, spec);
    };
    let mut reader = Reader { text, spec, grammar, survey: Survey::default() };
    reader.read(&mut tree.root_node().walk(), 0, 0);
    reader.survey
}

/// The lines of a definition up to its body: without the line that the body begins on if nothing else
/// is on that. A header of very many lines is cut to the first.
pub(super) fn header(text: &Rope, start: usize, body: Option<usize>) -> Range<usize> {
    const LONGEST: usize = 12;
    let first = text.char_to_line(start.min(text.len_chars()));
    let Some(body) = body else { return lines::span(text, first, first) };
    let line = text.char_to_line(body.min(text.len_chars()));
    let alone = body - text.line_to_char(line) <= lines::indent(text, line);
    let last = if alone && line > first { line - 1 } else { line };
    lines::span(text, first, if last - first < LONGEST { last } else { first })
}

struct Reader<'a> {
    text: &'a Rope,
    spec: &'static Spec,
    grammar: &'static Grammar,
    survey: Survey,
}

/// How many nodes may lie between a definition and the place where definitions belong: those deeper
/// inside are somebody's local affair.
const LOOSEST: usize = 3;

impl Reader<'_> {
    /// Reads the children of where the cursor is; `loose` counts towards [`LOOSEST`].
    fn read(&mut self, cursor: &mut TreeCursor, depth: usize, loose: usize) {
        const DEEPEST: usize = 32;
        if depth > DEEPEST || !cursor.goto_first_child() {
            return;
        }
        loop {
            let node = cursor.node();
            if node.is_named() {
                self.visit(cursor, node, depth, loose);
            }
            if !cursor.goto_next_sibling() {
                break;
            }
        }
        cursor.goto_parent();
    }

    fn visit(&mut self, cursor: &mut TreeCursor, node: Node, depth: usize, loose: usize) {
        match self.grammar.role(&node) {
            Role::Literal => {}
            Role::Import => self.import(node),
            Role::Block => self.read(cursor, depth + 1, loose),
            Role::Definition(definition) => {
                let descend = self.define(definition, node, loose);
                if descend {
                    self.read(cursor, depth + 1, 0);
                }
            }
            Role::Other if loose == 0 && self.calls_import(node) => self.import(node),
            Role::Other if loose < LOOSEST => self.read(cursor, depth + 1, loose + 1),
            Role::Other => {}
        }
    }

    /// Notes a definition; true where there are more inside of it.
    fn define(&mut self, definition: Definition, node: Node, loose: usize) -> bool {
        let body = definition.body(&node);
        let import = match definition.kind {
            // `mod name;` and the like: a module that is somewhere else.
            Kind::Module => definition.bodied && body.is_none(),
            Kind::Value => loose <= 1 && self.calls_import(node),
            _ => false,
        };
        if import {
            self.import(node);
            return false;
        }
        // `struct name` in front of a variable only mentions it.
        if definition.kind == Kind::Type && body.is_none() && loose > 0 {
            return false;
        }
        self.survey.definitions.push(Defined {
            kind: definition.kind,
            start: node.start_byte(),
            end: Some(node.end_byte()),
            body: body.map(|body| body.start_byte()),
            name: self.grammar.name(&definition, &node).map(|name| name.byte_range()),
        });
        matches!(definition.kind, Kind::Type | Kind::Module)
    }

    /// Whether a statement of one line calls a function that imports.
    fn calls_import(&self, node: Node) -> bool {
        if self.spec.import_calls.is_empty() || node.start_position().row != node.end_position().row {
            return false;
        }
        let chars = lines::chars(self.text, node.byte_range());
        let code = String::from(self.text.slice(chars.start..chars.end.min(chars.start + 200)));
        self.spec.import_calls.iter().any(|call| calls(&code, call))
    }

    fn import(&mut self, node: Node) {
        let chars = lines::chars(self.text, node.byte_range());
        // Some grammars count the line break in.
        let end = chars.end - usize::from(chars.len() > 1 && self.text.get_char(chars.end - 1) == Some('\n'));
        let lines = lines::span(self.text, self.text.char_to_line(chars.start), self.text.char_to_line(end));
        if self.survey.imports.last().is_none_or(|last| last.end < lines.start) {
            self.survey.imports.push(lines);
        }
    }
}

/// Whether `code` calls `function`, with parentheses or, as scripts do, without.
fn calls(code: &str, function: &str) -> bool {
    code.match_indices(function).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + function.len()..]);
        let whole = !before.ends_with(|c| lines::is_word(c) || c == '.' || c == ':');
        let word = function.ends_with(lines::is_word) || before.trim().is_empty();
        whole && word && after.starts_with(['(', ' ', '"', '\''])
    })
}

/// Words that begin a line which brings something in.
const IMPORTS: &[&str] =
    &["import", "from", "use", "using", "#include", "include", "require", "package", "open"];

/// Words before the name of something that is defined.
const DEFINES: &[(Kind, &[&str])] = &[
    (Kind::Function, &["fn", "func", "function", "def", "fun", "sub", "proc", "defun", "defn"]),
    (Kind::Type, &["class", "struct", "enum", "interface", "trait", "type", "record", "protocol", "data"]),
    (Kind::Module, &["module", "namespace", "object", "impl"]),
];

fn by_lines(text: &Rope, spec: &Spec) -> Survey {
    /// A file of more lines is looked at no further.
    const MOST: usize = 2_000;
    let mut survey = Survey::default();
    for line in 0..text.len_lines().min(MOST) {
        let content = lines::content(text, line);
        let code = content.trim_start();
        if spec.line_comment.is_some_and(|comment| code.starts_with(comment) && !code.starts_with("#include"))
        {
            continue;
        }
        let outermost = code.len() == content.len();
        let first = code.split(|c: char| c.is_whitespace() || "(\"'<".contains(c)).next().unwrap_or_default();
        if outermost && IMPORTS.contains(&first) {
            survey.imports.push(lines::span(text, line, line));
            continue;
        }
        let mut words = code.split(|c| !lines::is_word(c)).filter(|word| !word.is_empty()).take(6);
        let kind = words.find_map(|word| DEFINES.iter().find(|(_, starts)| starts.contains(&word)));
        if let (Some((kind, _)), Some(name)) = (kind, words.next()) {
            let start = text.line_to_byte(line);
            let at = name.as_ptr() as usize - content.as_ptr() as usize;
            let name = start + at..start + at + name.len();
            survey.definitions.push(Defined { kind: *kind, start, end: None, body: None, name: Some(name) });
        }
    }
    survey
}
