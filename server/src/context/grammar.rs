//! What a language's table says, looked up by the numbers that its grammar gives to kinds and fields:
//! a whole document is read at every keystroke, and comparing names would take most of that time.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU16;
use std::sync::LazyLock;

use tree_sitter::Node;

use super::facts::identity;
use crate::language::{Kind, Language};

/// What nodes of a kind are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// They bring in names.
    Import,
    /// They define something.
    Definition(Definition),
    /// A sequence of statements or members.
    Block,
    /// A comment or a string: nothing is defined in there.
    Literal,
    /// Anything else.
    Other,
}

/// [`crate::language::Definition`], with numbers for names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Definition {
    pub kind: Kind,
    /// Whether there could be a body.
    pub bodied: bool,
    name: Option<NonZeroU16>,
    body: Option<NonZeroU16>,
}

/// A grammar with what its kinds of nodes are.
#[derive(Debug)]
pub(super) struct Grammar {
    roles: Vec<Role>,
    inner_names: Vec<NonZeroU16>,
    keywords: HashSet<u64>,
}

static GRAMMARS: LazyLock<HashMap<Language, Grammar>> = LazyLock::new(|| {
    Language::all().filter_map(|language| Some((language, Grammar::new(language)?))).collect()
});

impl Grammar {
    /// The one of a language, if there is one.
    pub(super) fn of(language: Language) -> Option<&'static Grammar> {
        GRAMMARS.get(&language)
    }

    fn new(language: Language) -> Option<Grammar> {
        let (grammar, spec) = (language.grammar()?, language.spec());
        let role = |kind: &str| {
            if spec.imports.contains(&kind) {
                return Role::Import;
            }
            if let Some(definition) = spec.definition(kind) {
                return Role::Definition(Definition {
                    kind: definition.kind,
                    bodied: definition.body.is_some(),
                    name: grammar.field_id_for_name(definition.name),
                    body: definition.body.and_then(|body| grammar.field_id_for_name(body)),
                });
            }
            match () {
                () if spec.blocks.contains(&kind) => Role::Block,
                () if spec.comments.contains(&kind) || spec.strings.contains(&kind) => Role::Literal,
                () => Role::Other,
            }
        };
        let ids = 0..u16::try_from(grammar.node_kind_count()).unwrap_or(u16::MAX);
        let kind = |id: u16| grammar.node_kind_for_id(id).unwrap_or_default();
        let words = ids.clone().filter(|id| !grammar.node_kind_is_named(*id)).map(|id| identity(kind(id)));
        let fields = ["declarator", "name"].iter().filter_map(|field| grammar.field_id_for_name(field));
        Some(Grammar {
            keywords: words.collect(),
            roles: ids.map(|id| role(kind(id))).collect(),
            inner_names: fields.collect(),
        })
    }

    /// What a node is.
    pub(super) fn role(&self, node: &Node) -> Role {
        self.roles.get(usize::from(node.kind_id())).copied().unwrap_or(Role::Other)
    }

    /// Whether the [`identity`] is that of a word which the grammar knows.
    pub(super) fn is_keyword(&self, word: u64) -> bool {
        self.keywords.contains(&word)
    }

    /// The node with the name of what a node defines: `*f(int)` declares `f`.
    pub(super) fn name<'tree>(&self, definition: &Definition, node: &Node<'tree>) -> Option<Node<'tree>> {
        let outer = node.child_by_field_id(definition.name?.get())?;
        let inner = |node: &Node<'tree>| {
            self.inner_names.iter().find_map(|field| node.child_by_field_id(field.get()))
        };
        std::iter::successors(Some(outer), inner).last()
    }
}

impl Definition {
    /// The body in a node of this kind.
    pub(super) fn body<'tree>(&self, node: &Node<'tree>) -> Option<Node<'tree>> {
        node.child_by_field_id(self.body?.get())
    }
}
