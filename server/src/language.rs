//! Languages: identifiers, file names, grammars, and what their comments, scopes and imports look like.
//!
//! What differs between languages is data, in one table ([`Spec`]); code asks the table and never
//! names a language.

mod table;

use std::path::Path;

/// A language we know by name; [`Language::Other`] completes too, without a syntax tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    /// Rust.
    Rust,
    /// Python.
    Python,
    /// TypeScript without JSX.
    TypeScript,
    /// TypeScript with JSX.
    Tsx,
    /// JavaScript, with JSX or without.
    JavaScript,
    /// Go.
    Go,
    /// C.
    C,
    /// C++.
    Cpp,
    /// Java.
    Java,
    /// C#.
    CSharp,
    /// Ruby.
    Ruby,
    /// PHP, in HTML or without.
    Php,
    /// Lua.
    Lua,
    /// Bash and other Bourne shells.
    Bash,
    /// JSON, with comments or without.
    Json,
    /// HTML.
    Html,
    /// CSS.
    Css,
    /// Anything without a grammar.
    Other,
}

/// What there is to know about a language. Node kinds and fields are those of its grammar.
#[derive(Debug)]
pub struct Spec {
    /// Whose it is.
    pub language: Language,
    /// What the protocol calls it; the first is the usual one.
    pub ids: &'static [&'static str],
    /// Endings of file names, after the last dot, in lower case.
    pub extensions: &'static [&'static str],
    /// Whole file names, in lower case.
    pub file_names: &'static [&'static str],
    /// What begins a comment that ends with its line.
    pub line_comment: Option<&'static str>,
    /// What begins and ends a comment.
    pub block_comment: Option<(&'static str, &'static str)>,
    /// Whether indentation alone says where a block ends.
    pub indented: bool,
    /// Statements that bring in names from elsewhere.
    pub imports: &'static [&'static str],
    /// Functions whose call, in a statement of its own, is an import.
    pub import_calls: &'static [&'static str],
    /// What gives a name to something, or groups such things.
    pub definitions: &'static [Definition],
    /// Sequences of statements or members: bodies.
    pub blocks: &'static [&'static str],
    /// Comments.
    pub comments: &'static [&'static str],
    /// Strings and characters, and text that is not code.
    pub strings: &'static [&'static str],
    /// Code inside of strings.
    pub interpolations: &'static [&'static str],
    /// What begins and ends a string: for reading a line without a tree.
    pub quotes: &'static [char],
    /// What ends a statement, where that cannot be left out.
    pub terminator: Option<char>,
    /// Words that end the line before a block, besides opening brackets.
    pub openers: &'static [&'static str],
    /// What the line after a block begins with.
    pub closers: &'static [&'static str],
}

/// A kind of node that defines something.
#[derive(Debug)]
pub struct Definition {
    /// The node's kind.
    pub node: &'static str,
    /// What it defines.
    pub kind: Kind,
    /// The field with the name; in it, fields called `declarator` are followed to the innermost.
    pub name: &'static str,
    /// The field with the body, where there is one: without it the header is the first line.
    pub body: Option<&'static str>,
}

/// What a [`Definition`] defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Functions, methods, constructors.
    Function,
    /// Classes, structs, enums, interfaces, traits.
    Type,
    /// Modules, namespaces, implementations: groups of definitions.
    Module,
    /// Constants, type aliases, macros, fields.
    Value,
}

impl Language {
    /// By the protocol's identifier, else by the name of the file.
    pub fn of(id: &str, path: &Path) -> Language {
        Language::of_id(id).or_else(|| Language::of_name(path)).unwrap_or(Language::Other)
    }

    /// By the protocol's identifier, for instance `typescriptreact`.
    pub fn of_id(id: &str) -> Option<Language> {
        let id = id.to_ascii_lowercase();
        table::ALL.iter().find(|spec| spec.ids.contains(&id.as_str())).map(|spec| spec.language)
    }

    /// By the name of a file.
    pub fn of_name(path: &Path) -> Option<Language> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let extension = name.rsplit_once('.').map(|(_, extension)| extension);
        let fits = |spec: &&Spec| {
            spec.file_names.contains(&name.as_str())
                || extension.is_some_and(|extension| spec.extensions.contains(&extension))
        };
        table::ALL.iter().find(fits).map(|spec| spec.language)
    }

    /// All that have a grammar.
    pub fn all() -> impl Iterator<Item = Language> {
        table::ALL.iter().map(|spec| spec.language)
    }

    /// Whether code of one may use what code of the other defines.
    pub fn is_kin_of(self, other: Language) -> bool {
        let together = |family: &&[Language]| family.contains(&self) && family.contains(&other);
        self == other || table::FAMILIES.iter().any(together)
    }

    /// What the protocol usually calls it.
    pub fn id(self) -> &'static str {
        self.spec().ids.first().copied().unwrap_or("plaintext")
    }

    /// What there is to know about it.
    pub fn spec(self) -> &'static Spec {
        table::ALL.iter().find(|spec| spec.language == self).unwrap_or(&table::OTHER)
    }

    /// Its grammar, if there is one.
    pub fn grammar(self) -> Option<tree_sitter::Language> {
        let function = match self {
            Language::Rust => tree_sitter_rust::LANGUAGE,
            Language::Python => tree_sitter_python::LANGUAGE,
            Language::TypeScript => tree_sitter_typescript::LANGUAGE_TYPESCRIPT,
            Language::Tsx => tree_sitter_typescript::LANGUAGE_TSX,
            Language::JavaScript => tree_sitter_javascript::LANGUAGE,
            Language::Go => tree_sitter_go::LANGUAGE,
            Language::C => tree_sitter_c::LANGUAGE,
            Language::Cpp => tree_sitter_cpp::LANGUAGE,
            Language::Java => tree_sitter_java::LANGUAGE,
            Language::CSharp => tree_sitter_c_sharp::LANGUAGE,
            Language::Ruby => tree_sitter_ruby::LANGUAGE,
            Language::Php => tree_sitter_php::LANGUAGE_PHP,
            Language::Lua => tree_sitter_lua::LANGUAGE,
            Language::Bash => tree_sitter_bash::LANGUAGE,
            Language::Json => tree_sitter_json::LANGUAGE,
            Language::Html => tree_sitter_html::LANGUAGE,
            Language::Css => tree_sitter_css::LANGUAGE,
            Language::Other => return None,
        };
        Some(function.into())
    }
}

impl Spec {
    /// The definition that nodes of this kind make.
    pub fn definition(&self, node_kind: &str) -> Option<&'static Definition> {
        self.definitions.iter().find(|definition| definition.node == node_kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each language: a sample without a mistake in it, and the function that it defines.
    const SAMPLES: &[(Language, &str, &str)] = &[
        (Language::Rust, "use std::io;\npub fn area(r: f64) -> f64 { r * r }\n", "area"),
        (Language::Python, "import os\ndef area(r):\n    return r * r\n", "area"),
        (
            Language::TypeScript,
            "import { a } from './a';\nexport function area(r: number): number { return r * r; }\n",
            "area",
        ),
        (Language::Tsx, "function area(r: number) { return <div>{r}</div>; }\n", "area"),
        (Language::JavaScript, "const f = () => <a/>;\nfunction area(r) { return r * r; }\n", "area"),
        (Language::Go, "package main\nimport \"fmt\"\nfunc area(r int) int { return r * r }\n", "area"),
        (Language::C, "#include <a.h>\nstatic double *area(double r) { return 0; }\n", "area"),
        (Language::Cpp, "class C { public: int area(int r) { return r; } };\n", "area"),
        (Language::Java, "import a.b;\nclass C { int area(int r) { return r * r; } }\n", "area"),
        (Language::CSharp, "using System;\nclass C { int area(int r) { return r * r; } }\n", "area"),
        (Language::Ruby, "require 'set'\ndef area(r)\n  r * r\nend\n", "area"),
        (Language::Php, "<?php\nuse A\\B;\nfunction area($r) { return $r * $r; }\n", "area"),
        (Language::Lua, "local m = require('m')\nfunction area(r) return r * r end\n", "area"),
        (Language::Bash, "source lib.sh\narea() { echo \"$1\"; }\n", "area"),
    ];

    /// Languages without functions: a sample without a mistake in it.
    const PLAIN: &[(Language, &str)] = &[
        (Language::Json, "{\"a\": [1, true, null]}\n"),
        (Language::Html, "<!doctype html><html><body><p class=\"a\">b</p></body></html>\n"),
        (Language::Css, "@import url(a.css);\n.a > b { color: red; }\n"),
    ];

    fn parse(language: Language, text: &str) -> tree_sitter::Tree {
        let mut parser = tree_sitter::Parser::new();
        parser.set_language(&language.grammar().unwrap()).expect("this version of tree-sitter loads it");
        parser.parse(text, None).unwrap()
    }

    #[test]
    fn every_grammar_parses_its_sample() {
        let samples = SAMPLES.iter().map(|(language, text, _)| (*language, *text));
        let mut seen: Vec<_> = samples
            .chain(PLAIN.iter().copied())
            .map(|(language, text)| {
                let tree = parse(language, text);
                assert!(!tree.root_node().has_error(), "{language:?}: {}", tree.root_node().to_sexp());
                language
            })
            .collect();
        seen.dedup();
        let all: Vec<_> = table::ALL.iter().map(|spec| spec.language).collect();
        assert_eq!(seen, all, "a sample for each language, in the order of the table");
    }

    #[test]
    fn every_sample_has_its_function() {
        for (language, text, name) in SAMPLES {
            let tree = parse(*language, text);
            let mut todo = vec![tree.root_node()];
            let mut found = Vec::new();
            while let Some(node) = todo.pop() {
                if let Some(definition) = language.spec().definition(node.kind())
                    && definition.kind == Kind::Function
                {
                    let mut named = node.child_by_field_name(definition.name);
                    while let Some(inner) = named.and_then(|n| n.child_by_field_name("declarator")) {
                        named = Some(inner);
                    }
                    let body = definition.body.and_then(|field| node.child_by_field_name(field));
                    assert!(body.is_some(), "{language:?}: a body");
                    found.extend(named.and_then(|n| n.utf8_text(text.as_bytes()).ok()));
                }
                todo.extend((0..node.child_count()).filter_map(|i| node.child(i)));
            }
            assert!(found.contains(name), "{language:?}: {found:?} in {}", tree.root_node().to_sexp());
        }
    }

    #[test]
    fn the_table_names_only_what_the_grammars_have() {
        for spec in table::ALL {
            let grammar = spec.language.grammar().unwrap();
            let definitions = spec.definitions.iter().map(|definition| &definition.node);
            let kinds = definitions
                .chain(spec.imports)
                .chain(spec.blocks)
                .chain(spec.comments)
                .chain(spec.strings)
                .chain(spec.interpolations);
            for kind in kinds {
                assert_ne!(grammar.id_for_node_kind(kind, true), 0, "{:?}: {kind}", spec.language);
            }
            for definition in spec.definitions {
                for field in [Some(definition.name), definition.body].into_iter().flatten() {
                    let known = grammar.field_id_for_name(field).is_some();
                    assert!(known, "{:?}: {} of {}", spec.language, field, definition.node);
                }
            }
        }
    }

    #[test]
    fn languages_by_identifier_and_name() {
        let cases = [
            ("rust", "x", Language::Rust),
            ("Rust", "x", Language::Rust),
            ("typescriptreact", "x.ts", Language::Tsx),
            ("javascriptreact", "x", Language::JavaScript),
            ("shellscript", "x", Language::Bash),
            ("jsonc", "x", Language::Json),
            ("c", "x.h", Language::C),
            ("cpp", "x.h", Language::Cpp),
            ("plaintext", "/a/B.PY", Language::Python),
            ("", "a.test.tsx", Language::Tsx),
            ("", "a.mjs", Language::JavaScript),
            ("", "a.hpp", Language::Cpp),
            ("", "/home/ada/.bashrc", Language::Bash),
            ("", "Rakefile", Language::Ruby),
            ("markdown", "README.md", Language::Other),
            ("", "rs", Language::Other),
            ("", "", Language::Other),
        ];
        for (id, name, want) in cases {
            assert_eq!(Language::of(id, Path::new(name)), want, "{id:?} {name:?}");
        }
        assert_eq!(Language::Bash.id(), "shellscript");
        assert_eq!(Language::Other.id(), "plaintext");
    }

    #[test]
    fn no_two_languages_claim_the_same_name() {
        let mut seen = std::collections::HashSet::new();
        for spec in table::ALL {
            for name in spec.ids.iter().map(|id| format!("id {id}")) {
                assert!(seen.insert(name.clone()), "{name}");
            }
            for name in spec.extensions.iter().map(|ext| format!(".{ext}")) {
                assert!(seen.insert(name.clone()), "{name}");
            }
        }
    }
}
