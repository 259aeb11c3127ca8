//! The functions, types and blocks around a cursor.

use std::ops::Range;

use ropey::Rope;
use tree_sitter::Node;

use super::super::{lines, survey};
use super::{Place, broken_from};
use crate::documents::Snapshot;
use crate::language::{Kind, Spec};

/// What a [`Scope`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScopeKind {
    /// A function, method or a variable that holds one.
    Function,
    /// A class, struct, enum, interface or trait.
    Type,
    /// A module, namespace or implementation.
    Module,
    /// The body of a condition, a loop or another statement.
    Block,
}

/// Something with a body that the cursor is in. All places are characters from the start of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// What it is.
    pub kind: ScopeKind,
    /// The whole lines up to the body, without the last one's break.
    pub header: Range<usize>,
    /// What is between the brackets, or the indented lines; as far as it is written.
    pub body: Range<usize>,
    /// How many characters of white space the header begins with.
    pub indent: usize,
}

/// The innermost function, type or module around the cursor.
pub fn enclosing_scope(document: &Snapshot, cursor: usize) -> Option<Scope> {
    enclosing_scopes(document, cursor).into_iter().next()
}

/// All functions, types and modules around the cursor, the innermost first.
pub fn enclosing_scopes(document: &Snapshot, cursor: usize) -> Vec<Scope> {
    let mut scopes = enclosing(document, cursor);
    scopes.retain(|scope| scope.kind != ScopeKind::Block);
    scopes
}

/// The innermost body of any kind around the cursor.
pub fn enclosing_block(document: &Snapshot, cursor: usize) -> Option<Scope> {
    enclosing(document, cursor).into_iter().next()
}

fn enclosing(document: &Snapshot, cursor: usize) -> Vec<Scope> {
    let (text, spec) = (&document.text, document.language.spec());
    let cursor = cursor.min(text.len_chars());
    let Some(place) = Place::of(document, cursor) else {
        return by_indentation(text, spec, cursor, 0);
    };
    let paths = place.paths();
    let Some(broken) = broken_from(&paths) else {
        return by_tree(text, spec, cursor, &paths, usize::MAX);
    };
    let broken = text.byte_to_char(broken.min(text.len_bytes()));
    let mut scopes = by_indentation(text, spec, cursor, broken);
    scopes.extend(by_tree(text, spec, cursor, &paths, broken));
    scopes
}

/// The scopes of the tree that begin before the character `limit`.
fn by_tree(text: &Rope, spec: &Spec, cursor: usize, paths: &[Vec<Node>], limit: usize) -> Vec<Scope> {
    let mut found: Vec<Scope> = Vec::new();
    for (owner, node) in paths.iter().flat_map(|path| owned(path)) {
        let Some(scope) = scope_of(text, spec, node, owner) else { continue };
        let start = text.byte_to_char(node.start_byte().min(text.len_bytes()));
        if start < limit && holds(text, spec, &scope, node, cursor) && !found.contains(&scope) {
            found.push(scope);
        }
    }
    // The inner one begins later; of a block and the definition whose body it is, the definition stays.
    found.sort_by_key(|scope| (std::cmp::Reverse(scope.body.start), scope.kind == ScopeKind::Block));
    found.dedup_by_key(|scope| scope.body.start);
    found
}

/// The nodes of a path, each with the one that it is in, as far as that is not the root.
fn owned<'a>(path: &'a [Node<'a>]) -> impl Iterator<Item = (Option<Node<'a>>, Node<'a>)> {
    let owners = path.iter().skip(1).map(|owner| Some(*owner));
    [None, None].into_iter().chain(owners).zip(path.iter().copied())
}

fn scope_of(text: &Rope, spec: &Spec, node: Node, owner: Option<Node>) -> Option<Scope> {
    let Some(definition) = spec.definition(node.kind()) else {
        // A block in a block, or at the outermost, has no statement that it belongs to.
        let owner = owner.filter(|owner| !spec.blocks.contains(&owner.kind()));
        let start = owner.unwrap_or(node).start_byte();
        let block = spec.blocks.contains(&node.kind());
        return block.then(|| scope_from(text, ScopeKind::Block, start, node));
    };
    let body = definition.body.and_then(|field| node.child_by_field_name(field));
    let kind = match definition.kind {
        Kind::Function => ScopeKind::Function,
        Kind::Type => ScopeKind::Type,
        Kind::Module => ScopeKind::Module,
        // A variable is a scope where its value is a function or a class.
        Kind::Value => {
            let inner = body?.child_by_field_name("body")?;
            return Some(scope_from(text, ScopeKind::Function, node.start_byte(), inner));
        }
    };
    match body {
        Some(body) => Some(scope_from(text, kind, node.start_byte(), body)),
        None => bodyless(text, kind, node),
    }
}

fn scope_from(text: &Rope, kind: ScopeKind, start: usize, body: Node) -> Scope {
    let start = lines::chars(text, start..start).start;
    let body = lines::chars(text, body.byte_range());
    let header = survey::header(text, start, Some(body.start));
    let opens = matches!(text.get_char(body.start), Some('{' | '['));
    let last = body.end.checked_sub(1).and_then(|last| text.get_char(last));
    let closes = opens && matches!(last, Some('}' | ']')) && body.len() > 1;
    let body = body.start + usize::from(opens)..body.end - usize::from(closes);
    Scope { kind, indent: lines::indent(text, text.char_to_line(header.start)), header, body }
}

/// A definition over several lines whose body is still empty, in languages that then have no node for it.
fn bodyless(text: &Rope, kind: ScopeKind, node: Node) -> Option<Scope> {
    let chars = lines::chars(text, node.byte_range());
    let (first, last) = (text.char_to_line(chars.start), text.char_to_line(chars.end));
    let header = survey::header(text, chars.start, None);
    let end = text.line_to_char(last);
    (first < last && header.end < end).then(|| Scope {
        kind,
        indent: lines::indent(text, first),
        body: header.end..end,
        header,
    })
}

/// Whether the cursor is in the body, or behind it with nothing but white space between where the body
/// is still open there.
fn holds(text: &Rope, spec: &Spec, scope: &Scope, node: Node, cursor: usize) -> bool {
    if cursor < scope.body.start {
        // Where a block is what is indented, its first lines may still be blank.
        return spec.indented && cursor > scope.header.end && indented_below(text, spec, scope, cursor);
    }
    if spec.indented {
        let same_line = text.char_to_line(cursor) == text.char_to_line(scope.header.start);
        return same_line && cursor <= scope.body.end || indented_below(text, spec, scope, cursor);
    }
    cursor <= scope.body.end || unclosed(node)
}

fn indented_below(text: &Rope, spec: &Spec, scope: &Scope, cursor: usize) -> bool {
    let line = text.char_to_line(cursor);
    line > text.char_to_line(scope.header.start) && reach(text, spec, line, cursor) > scope.indent
}

/// How far in a line is where the cursor stands: a blank one is as far in as the cursor.
fn cursor_indent(text: &Rope, line: usize, cursor: usize) -> usize {
    let column = cursor - text.line_to_char(line);
    if lines::is_blank(text, line) { column } else { lines::indent(text, line) }
}

/// Whether the parser had to make up the end of the node or of its body.
fn unclosed(node: Node) -> bool {
    std::iter::successors(Some(node), last_child).any(|node| node.is_missing())
}

fn last_child<'tree>(node: &Node<'tree>) -> Option<Node<'tree>> {
    node.child(node.child_count().checked_sub(1)?)
}

/// Words that begin the header of a scope, wherever in the line they stand.
const WORDS: &[(ScopeKind, &[&str])] = &[
    (ScopeKind::Function, &["fn", "func", "function", "def", "sub", "proc", "fun", "defun", "method"]),
    (ScopeKind::Type, &["class", "struct", "enum", "interface", "trait", "union", "record", "protocol"]),
    (ScopeKind::Module, &["impl", "mod", "module", "namespace", "package", "extension"]),
];

/// Words that begin a statement with a block: what follows one is no function, even with parentheses.
const STATEMENTS: &[&str] = &[
    "if", "else", "elif", "elsif", "for", "foreach", "while", "until", "switch", "match", "case", "do",
    "loop", "try", "catch", "except", "finally", "with", "unless", "begin", "select", "unsafe", "return",
    "when", "using", "lock", "repeat",
];

/// Scopes from the lines above the cursor that stand less and less far in. Only those that begin at the
/// character `from` or behind it.
fn by_indentation(text: &Rope, spec: &Spec, cursor: usize, from: usize) -> Vec<Scope> {
    /// Lines looked at: whoever is further away is no help.
    const FARTHEST: usize = 2_000;
    let at = text.char_to_line(cursor);
    let mut limit = reach(text, spec, at, cursor);
    let mut scopes = Vec::new();
    let mut line = at;
    while let Some(above) = lines::above(text, line) {
        line = above;
        if limit == 0 || at - line > FARTHEST || lines::span(text, line, line).end < from {
            break;
        }
        let indent = lines::indent(text, line);
        if indent >= limit {
            continue;
        }
        limit = indent;
        let content = lines::content(text, line);
        if closes(spec, &content) && !opens(spec, &content) {
            continue;
        }
        let first = first_line_of_header(text, line, indent, &content);
        let header = lines::span(text, first, line);
        if header.end >= from {
            let kind = kind_of(&String::from(text.slice(header.clone())));
            scopes.push(Scope { kind, body: header.end..body_end(text, at, indent), header, indent });
        }
    }
    scopes
}

/// Lines further out than this are around the cursor. On a blank line without white space before the
/// cursor nobody has indented yet: it is inside of what the line above opens.
fn reach(text: &Rope, spec: &Spec, line: usize, cursor: usize) -> usize {
    let own = cursor_indent(text, line, cursor);
    if own > 0 || !lines::is_blank(text, line) {
        return own;
    }
    let Some(above) = lines::above(text, line) else { return 0 };
    let indent = lines::indent(text, above);
    let content = lines::content(text, above);
    match opens(spec, &content) {
        true => indent + 1,
        false if spec.indented => 0,
        false => indent,
    }
}

/// Whether a block begins behind this line.
pub(super) fn opens(spec: &Spec, content: &str) -> bool {
    let content = content.trim_end();
    let word = content.rsplit(|c| !lines::is_word(c)).next().unwrap_or_default();
    content.ends_with(['{', '(', '['])
        || (spec.indented && content.ends_with(':'))
        || spec.openers.contains(&word)
}

/// Whether this line ends a block.
pub(super) fn closes(spec: &Spec, content: &str) -> bool {
    let content = content.trim_start();
    content.starts_with([')', ']', '}'])
        || spec.closers.iter().any(|closer| {
            content
                .strip_prefix(closer)
                .is_some_and(|rest| !closer.ends_with(lines::is_word) || !rest.starts_with(lines::is_word))
        })
}

/// A header may begin lines before the one that ends it: `) -> u8 {` belongs to the line as far in above.
fn first_line_of_header(text: &Rope, line: usize, indent: usize, content: &str) -> usize {
    const LONGEST: usize = 30;
    if !content.trim_start().starts_with([')', ']', '{']) {
        return line;
    }
    let candidates = (0..line).rev().take(LONGEST).filter(|above| !lines::is_blank(text, *above));
    candidates
        .take_while(|above| lines::indent(text, *above) >= indent)
        .find(|above| lines::indent(text, *above) == indent)
        .unwrap_or(line)
}

fn kind_of(header: &str) -> ScopeKind {
    let code = header.split(['(', '{', ':', '=']).next().unwrap_or(header);
    let words: Vec<&str> = code.split(|c| !lines::is_word(c)).filter(|word| !word.is_empty()).collect();
    let first = words.first().copied().unwrap_or_default();
    if STATEMENTS.contains(&first) {
        return ScopeKind::Block;
    }
    let named = WORDS.iter().find(|(_, starts)| words.iter().any(|word| starts.contains(word)));
    match named {
        Some((kind, _)) => *kind,
        // `int main(void) {`: two words before the parentheses.
        None if words.len() > 1 && header.contains('(') && !header.contains('=') => ScopeKind::Function,
        None => ScopeKind::Block,
    }
}

/// Where the lines further in than `indent` end, from line `line` on.
fn body_end(text: &Rope, line: usize, indent: usize) -> usize {
    let inside = |line: &usize| lines::is_blank(text, *line) || lines::indent(text, *line) > indent;
    let last =
        (line..text.len_lines()).take_while(inside).filter(|line| !lines::is_blank(text, *line)).last();
    lines::span(text, line, last.unwrap_or(line)).end
}
