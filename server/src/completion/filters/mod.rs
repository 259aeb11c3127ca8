//! What to cut from an answer before anyone sees it.
//!
//! Each rule is one function in its own file: it takes the site and the text so far and returns what is
//! left of it. The rule that leaves nothing is the one that filtered the answer, and its name says why
//! nothing is shown. `cases.txt` holds examples anyone can add to.

mod brackets;
mod control;
mod indentation;
mod mid_line;
mod neighbour;
mod nothing;
mod overlap;
mod retype;
pub mod runaway;
mod scope;
mod trailing;
mod unfinished;

use std::borrow::Cow;

use crate::completion::site::Site;

/// A rule: what is left of an answer.
type Apply = for<'a> fn(&Site, &'a str) -> Cow<'a, str>;

/// The rules, in the order in which they apply.
pub(super) const RULES: [(&str, Apply); 10] = [
    // First: nothing behind a control token was ever meant for the user.
    ("control_token", control::apply),
    // Before anything that reads columns: the first line has to start where the cursor stands.
    ("indentation", indentation::apply),
    // The same end at which the engine was told to stop; what is behind it is chance.
    ("scope", scope::apply),
    ("runaway", runaway::apply),
    // A model that does not see the text to the right has to arrive at it.
    ("mid_line", mid_line::apply),
    // What the text behind the cursor says already: first word by word, then bracket by bracket.
    ("overlap", overlap::apply),
    ("brackets", brackets::apply),
    // Looks at whole lines, so it comes after all that shortens them.
    ("neighbour", neighbour::apply),
    // Last: the cuts above leave blanks, and sometimes nothing but a comment marker.
    ("trailing", trailing::apply),
    ("nothing", nothing::apply),
];

/// What is left of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The text; empty when a rule took all of it.
    pub text: String,
    /// Bytes of the text behind the cursor that it types again and so replaces; never beyond the line.
    pub covers: usize,
    /// The rule that left nothing.
    pub rule: Option<&'static str>,
}

/// Applies all rules. `cut_short`: the answer ended at a limit and not by itself.
pub fn run(site: &Site, answer: &str, cut_short: bool) -> Shown {
    let mut text = answer.to_string();
    if cut_short {
        text = unfinished::apply(site, &text).to_string();
    }
    if text.trim().is_empty() {
        let rule = (!answer.trim().is_empty()).then_some("unfinished");
        return Shown { text: String::new(), covers: 0, rule };
    }
    let covers = retype::covers(site, &text);
    let narrowed = (covers > 0).then(|| {
        Site::new(site.before.clone(), site.after[covers..].to_string(), site.lexis, site.shape, site.blind)
    });
    let site = narrowed.as_ref().unwrap_or(site);
    for (name, apply) in RULES {
        let left = apply(site, &text);
        if left.trim().is_empty() {
            return Shown { text: String::new(), covers: 0, rule: Some(name) };
        }
        if left != text {
            text = left.into_owned();
        }
    }
    Shown { text, covers, rule: None }
}

#[cfg(test)]
mod cases;
