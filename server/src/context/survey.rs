//! What a document brings in and what it defines.

use std::ops::Range;

use ropey::Rope;
use tree_sitter::{Node, TreeCursor};

use super::lines;
use crate::documents::Snapshot;
use crate::language::{Definition, Kind, Spec};

/// What a document brings in and what it defines, in order of place. Places are characters.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The imports, each on whole lines.
    pub imports: Vec<Range<usize>>,
    /// The definitions, outside of functions.
    pub definitions: Vec<Defined>,
}

/// A definition.
#[derive(Debug)]
pub(super) struct Defined {
    pub kind: Kind,
    /// Empty for what has none.
    pub name: String,
    /// All of it.
    pub chars: Range<usize>,
    /// Where its body begins.
    pub body: Option<usize>,
}

/// Reads a document. Without a tree this finds imports and what begins with a telling word.
pub(super) fn survey(document: &Snapshot) -> Survey {
    let spec = document.language.spec();
    match document.tree() {
        Some(tree) => {
            let mut reader = Reader { text: &document.text, spec, survey: Survey::default() };
            reader.read(&mut tree.root_node().walk(), 0, 0);
            reader.survey
        }
        None => by_lines(&document.text, spec),
    }
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

/// A definition's header without its body, on one to a few lines.
pub(super) fn signature(text: &Rope, defined: &Defined) -> Option<Range<usize>> {
    const WIDEST: usize = 400;
    let header = header(text, defined.chars.start, defined.body);
    let end = match defined.body {
        Some(body) if defined.kind != Kind::Value => header.end.min(body),
        _ => header.end,
    };
    let white = text.slice(header.start..end).chars_at(end - header.start).reversed();
    let end = end - white.take_while(|c| c.is_whitespace()).count();
    (header.start < end && end - header.start <= WIDEST).then_some(header.start..end)
}

struct Reader<'a> {
    text: &'a Rope,
    spec: &'static Spec,
    survey: Survey,
}

impl Reader<'_> {
    /// Reads the children of where the cursor is. `loose` counts the nodes passed that are no place
    /// where definitions belong: deep inside of those they are somebody's local affair.
    fn read(&mut self, cursor: &mut TreeCursor, depth: usize, loose: usize) {
        const DEEPEST: usize = 32;
        const LOOSEST: usize = 3;
        if depth > DEEPEST || !cursor.goto_first_child() {
            return;
        }
        loop {
            let node = cursor.node();
            if node.is_named() {
                self.visit(cursor, node, depth, loose.min(LOOSEST), LOOSEST);
            }
            if !cursor.goto_next_sibling() {
                break;
            }
        }
        cursor.goto_parent();
    }

    fn visit(&mut self, cursor: &mut TreeCursor, node: Node, depth: usize, loose: usize, loosest: usize) {
        if self.is_import(node, loose) {
            return self.import(node);
        }
        let block = self.spec.blocks.contains(&node.kind());
        match self.spec.definition(node.kind()) {
            Some(definition) if !self.define(definition, node, loose) => {}
            Some(definition) if matches!(definition.kind, Kind::Type | Kind::Module) => {
                self.read(cursor, depth + 1, 0);
            }
            Some(_) => {}
            None if block => self.read(cursor, depth + 1, loose),
            None if loose < loosest => self.read(cursor, depth + 1, loose + 1),
            None => {}
        }
    }

    fn is_import(&self, node: Node, loose: usize) -> bool {
        if self.spec.imports.contains(&node.kind()) {
            return true;
        }
        let Some(definition) = self.spec.definition(node.kind()) else {
            return loose == 0 && self.calls_import(node);
        };
        match definition.kind {
            // `mod name;` and the like: a module that is somewhere else.
            Kind::Module => definition.body.is_some_and(|body| node.child_by_field_name(body).is_none()),
            Kind::Value => loose <= 1 && self.calls_import(node),
            _ => false,
        }
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

    /// Notes a definition; false where the node only mentions something.
    fn define(&mut self, definition: &Definition, node: Node, loose: usize) -> bool {
        let body = definition.body.and_then(|field| node.child_by_field_name(field));
        if definition.kind == Kind::Type && body.is_none() && loose > 0 {
            return false;
        }
        let text = self.text;
        self.survey.definitions.push(Defined {
            kind: definition.kind,
            name: node.child_by_field_name(definition.name).map_or_else(String::new, |at| name(text, at)),
            chars: lines::chars(text, node.byte_range()),
            body: body.map(|body| lines::chars(text, body.byte_range()).start),
        });
        true
    }
}

/// The name in a node that declares one: `*f(int)` declares `f`, and `List<T>` is `List`.
fn name(text: &Rope, mut node: Node) -> String {
    const LONGEST: usize = 100;
    while let Some(inner) = node.child_by_field_name("declarator").or(node.child_by_field_name("name")) {
        node = inner;
    }
    let chars = lines::chars(text, node.byte_range());
    let chars = text.slice(chars.start..chars.end.min(chars.start + LONGEST)).chars();
    chars.skip_while(|c| !lines::is_word(*c)).take_while(|c| lines::is_word(*c)).collect()
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
    const MOST: usize = 5_000;
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
            let chars = lines::span(text, line, line);
            survey.definitions.push(Defined { kind: *kind, name: name.to_owned(), chars, body: None });
        }
    }
    survey
}
