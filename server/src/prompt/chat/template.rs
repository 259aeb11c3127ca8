//! A checkpoint's own chat template, rendered so that what people say never passes through it.
//!
//! A template gets a placeholder in place of each message and is cut at them afterwards. So nothing in a
//! message can act on the template, and what the template itself writes, control tokens included, is
//! told apart from what was said.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value};

use super::Role;

/// Steps that a rendering may take: templates of the family take a few dozen a message.
const FUEL: u64 = 2_000_000;
/// Characters that a rendering may have, the messages themselves left out.
const MOST_TEXT: usize = 1 << 20;
const NAME: &str = "chat_template";

/// What stands in a dialogue one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Written by the layout; control tokens are spelt in it.
    Markup(String),
    /// What was said, by the number of the message.
    Said(usize),
}

/// A template that lays out dialogues.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    /// Whether a message's content is a list of `{type, text}` and not a text.
    listed: bool,
}

impl Template {
    /// Compiles a template and tries it. The error says what is wrong with it.
    pub fn new(source: &str) -> Result<Self, String> {
        let mut environment = environment().map_err(|error| error.to_string())?;
        environment.add_template_owned(NAME, source.to_owned()).map_err(|error| error.to_string())?;
        let trial = [Role::User, Role::Model, Role::User];
        let plain = Self { environment, listed: false };
        let why = match plain.lay_out(&trial) {
            Ok(_) => return Ok(plain),
            Err(why) => why,
        };
        let listed = Self { listed: true, ..plain };
        // Nearly all templates take texts: what is wrong then is what to tell.
        listed.lay_out(&trial).map(|_| listed).map_err(|_| why)
    }

    /// Lays out messages of these roles, oldest first, up to where the model's answer begins.
    ///
    /// Fails when the template fails, or does not show every message once and in order.
    pub fn lay_out(&self, roles: &[Role]) -> Result<Vec<Piece>, String> {
        let secret = RandomState::new();
        let placeholders: Vec<String> =
            (0..roles.len()).map(|n| format!("said{:016x}{n}end", secret.hash_one(n))).collect();
        let text = self.render(roles, &placeholders).map_err(|error| error.to_string())?;
        if text.len() > MOST_TEXT {
            return Err("it writes without end".to_owned());
        }
        cut(&text, &placeholders)
    }

    fn render(&self, roles: &[Role], said: &[String]) -> Result<String, minijinja::Error> {
        let messages = roles.iter().zip(said).map(|(role, said)| {
            let role = match role {
                Role::User => "user",
                Role::Model => "assistant",
            };
            let content = if self.listed {
                let text = BTreeMap::from([("type", Value::from("text")), ("text", Value::from(said))]);
                Value::from(vec![Value::from(text)])
            } else {
                Value::from(said)
            };
            Value::from(BTreeMap::from([("role", Value::from(role)), ("content", content)]))
        });
        let context = BTreeMap::from([
            ("messages", messages.collect()),
            ("add_generation_prompt", Value::from(true)),
            ("bos_token", Value::from("<bos>")),
            ("eos_token", Value::from("<eos>")),
        ]);
        self.environment.get_template(NAME)?.render(Value::from(context))
    }
}

/// Jinja as the published templates are written for: blocks leave no line breaks, strings have Python's
/// methods, and a template may refuse.
fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_fuel(Some(FUEL));
    environment.add_function("raise_exception", |reason: String| -> Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, reason))
    });
    Ok(environment)
}

fn cut(text: &str, placeholders: &[String]) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    for (n, placeholder) in placeholders.iter().enumerate() {
        let Some((before, behind)) = rest.split_once(placeholder.as_str()) else {
            return Err("it does not show every message, in their order".to_owned());
        };
        pieces.push(Piece::Markup(before.to_owned()));
        pieces.push(Piece::Said(n));
        rest = behind;
    }
    pieces.push(Piece::Markup(rest.to_owned()));
    let markup = |piece: &Piece| match piece {
        Piece::Markup(text) => placeholders.iter().any(|placeholder| text.contains(placeholder.as_str())),
        Piece::Said(_) => false,
    };
    if pieces.iter().any(markup) {
        return Err("it shows a message twice".to_owned());
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layout as one text, messages as their numbers in brackets.
    fn shown(template: &Template, roles: &[Role]) -> String {
        let pieces = template.lay_out(roles).expect("it renders");
        let show = |piece: &Piece| match piece {
            Piece::Markup(text) => text.clone(),
            Piece::Said(n) => format!("[{n}]"),
        };
        pieces.iter().map(show).collect()
    }

    #[test]
    fn messages_are_told_apart_from_what_the_template_writes() {
        let source = "{{ bos_token }}{% for m in messages %}\n\
                      {{ m['role'].upper() + ': ' + m.content | trim }}{{ eos_token }}\n\
                      {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}";
        let template = Template::new(source).expect("it is sound");
        let roles = [Role::User, Role::Model, Role::User];
        assert_eq!(
            shown(&template, &roles),
            "<bos>USER: [0]<eos>\nASSISTANT: [1]<eos>\nUSER: [2]<eos>\nASSISTANT:"
        );
    }

    #[test]
    fn contents_may_be_lists() {
        let source = "{% for m in messages %}{% for part in m.content %}{% if part.type == 'text' %}\
                      {{ part.text }}\n{% endif %}{% endfor %}{% endfor %}";
        let template = Template::new(source).expect("it is sound");
        assert_eq!(shown(&template, &[Role::User]), "[0]\n");
    }

    #[test]
    fn loops_can_be_left_and_strings_have_pythons_methods() {
        let source = "{% for m in messages %}{% if loop.index0 > 5 %}{% break %}{% endif %}\
                      {{ m.content.strip() }};{% endfor %}";
        let template = Template::new(source).expect("it is sound");
        assert_eq!(shown(&template, &[Role::User, Role::Model, Role::User]), "[0];[1];[2];");
        assert!(template.lay_out(&[Role::User; 7]).is_err(), "the last message is not shown");
    }

    #[test]
    fn what_is_wrong_with_a_template_is_said() {
        for (source, said) in [
            ("{% for %}", "syntax error"),
            ("{{ raise_exception('no chat with me') }}", "no chat with me"),
            ("{{ messages | no_such_filter }}", "no_such_filter"),
            ("Hello", "does not show every message"),
            ("{{ messages[0].content }}", "does not show every message"),
            ("{% for m in messages | reverse %}{{ m.content }}{% endfor %}", "does not show every message"),
            ("{% for m in messages %}{{ m.content + m.content }}{% endfor %}", "twice"),
            ("{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}", "fuel"),
        ] {
            let error = Template::new(source).expect_err(source);
            assert!(error.contains(said), "{source}: {error}");
        }
    }
}
