//! Why a completion shows what it shows, in sentences for people: one place for every client.

use std::borrow::Cow;

use super::Reason;

/// Why an answer shows what it shows. The rule is [`Answer::rule`](super::Answer::rule).
pub fn sentence(reason: Reason, rule: Option<&str>) -> Cow<'static, str> {
    match (reason, rule) {
        (Reason::Shown, Some("reuse")) => "The rest of an earlier suggestion was shown.".into(),
        (Reason::Shown, Some("running")) => {
            "The rest of a suggestion was shown that was computed while you typed.".into()
        }
        (Reason::Shown, _) => "A suggestion was shown.".into(),
        (Reason::Empty, Some("unknownDocument")) => {
            "The editor has not opened this file with gemma-ls.".into()
        }
        (Reason::Empty, _) => "The model had nothing to add here.".into(),
        (Reason::Superseded, Some("cancelled")) => "The editor cancelled the request.".into(),
        (Reason::Superseded, Some("edited")) => "The text changed while the suggestion was computed.".into(),
        (Reason::Superseded, Some("stopped")) => {
            "The model was replaced while it computed the suggestion.".into()
        }
        (Reason::Superseded, _) => "A newer request took the place of this one.".into(),
        (Reason::Loading, Some("loadFailed")) => "There is no model: loading it failed.".into(),
        (Reason::Loading, _) => "The model is still loading.".into(),
        (Reason::Disabled, rule) => off(rule.unwrap_or_default()).into(),
        (Reason::Filtered, rule) => filtered(rule.unwrap_or_default()),
    }
}

/// What failed, where a completion did.
pub fn failed(error: &str) -> String {
    format!("The completion failed: {error}")
}

/// By which rule of [`Permission`](crate::permission::Permission), or of the setting `trigger`, nothing is
/// completed.
pub fn off(rule: &str) -> &'static str {
    match rule {
        "secretFiles" => {
            "Completion is off in this file because it may hold secrets (see the setting secretFiles)."
        }
        "languagesOff" => "Completion is off in this language (setting languagesOff).",
        "filesOff" => "Completion is off in this file (setting filesOff).",
        "trigger" => "Completion waits until you ask for it (setting trigger: manual).",
        _ => "Completion is off here.",
    }
}

/// What was wrong with a suggestion that a rule took away.
fn filtered(rule: &str) -> Cow<'static, str> {
    match rule {
        "control_token" => "The suggestion was no text.",
        "indentation" | "trailing" => "The suggestion was nothing but white space.",
        "scope" => "The suggestion did not belong to the block that the cursor is in.",
        "runaway" => "The suggestion repeated itself.",
        "mid_line" => "The suggestion did not lead to the text right of the cursor.",
        "overlap" => "The suggestion said what stands behind the cursor already.",
        "brackets" => "The suggestion closed what is closed already.",
        "neighbour" => "The suggestion repeated the line above or below.",
        "nothing" => "The suggestion was an empty comment.",
        "unfinished" => "The suggestion was cut off in its first word (settings maxTokens and maxTimeMs).",
        "too_late" => "The time for a suggestion was over before there was one (setting maxTimeMs).",
        other => return format!("The rule {other:?} took the suggestion away.").into(),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::filters::RULES;

    #[test]
    fn every_rule_has_a_sentence_of_its_own_words() {
        let rules = RULES.iter().map(|(name, _)| *name).chain(["unfinished", "too_late"]);
        for rule in rules {
            let said = sentence(Reason::Filtered, Some(rule));
            assert!(!said.contains(&format!("{rule:?}")) && said.ends_with('.'), "{rule}: {said}");
        }
        assert_eq!(sentence(Reason::Filtered, Some("new")), "The rule \"new\" took the suggestion away.");
        for rule in ["secretFiles", "languagesOff", "filesOff", "trigger"] {
            assert!(off(rule).contains(rule), "{rule}");
        }
    }
}
