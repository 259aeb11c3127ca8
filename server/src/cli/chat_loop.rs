//! A conversation at the terminal or from a pipe: lines in, answers out, commands that begin with `/`.

use std::path::PathBuf;

use super::chat::Talk;
use super::chat_input::{Input, Line};
use super::failure::{Exit, Failure, Outcome};
use super::interrupt::Interrupts;
use super::output;

const HELP: &str = "\
/file PATH  talk about this file from now on
/clear      forget what was said
/quit       end; so does Ctrl-D
Ctrl-C stops an answer, Alt-Enter begins a new line, and a pasted text may have several.";

/// What a line means.
#[derive(Debug, PartialEq, Eq)]
enum Wish<'a> {
    Nothing,
    Ask(&'a str),
    File(PathBuf),
    Clear,
    Help,
    Quit,
    /// A command that makes no sense, and why.
    Wrong(String),
}

impl<'a> Wish<'a> {
    fn of(line: &'a str) -> Self {
        let line = line.trim();
        let Some(command) = line.strip_prefix('/') else {
            return if line.is_empty() { Self::Nothing } else { Self::Ask(line) };
        };
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match (name, rest) {
            ("file", "") => Self::Wrong("/file wants the path of a file".to_owned()),
            ("file", path) => Self::File(path.trim_matches(['"', '\'']).into()),
            ("clear", "") => Self::Clear,
            ("help" | "?", "") => Self::Help,
            ("quit" | "exit" | "q", "") => Self::Quit,
            // `/usr/bin is what?` and `// what is this?` are questions.
            (name, _) if name.is_empty() || !name.chars().all(char::is_alphabetic) => Self::Ask(line),
            (name, "") => Self::Wrong(format!("there is no command /{name}; /help shows those there are")),
            ("clear" | "help" | "quit" | "exit", _) => {
                Self::Wrong(format!("/{name} takes nothing behind it"))
            }
            _ => Self::Ask(line),
        }
    }
}

/// Answers questions until there are no more. The exit code is that of the first that failed.
pub fn run(talk: &mut Talk<'_>, interrupts: &Interrupts) -> Outcome<Exit> {
    let mut input = Input::open(talk.json())?;
    if input.is_terminal() && !talk.quiet() {
        output::say(format_args!("{}. /help shows what else there is; Ctrl-D ends.", talk.subject()));
    }
    let mut exit = Exit::Ok;
    loop {
        let line = match input.next()? {
            Line::Text(line) => line,
            Line::Interrupted => {
                output::say("Ctrl-D or /quit ends.");
                continue;
            }
            Line::End => return Ok(exit),
        };
        let done = match Wish::of(&line) {
            Wish::Nothing => Ok(()),
            Wish::Ask(question) => ask(talk, question, interrupts),
            Wish::File(path) => talk.change_file(path),
            Wish::Clear => {
                talk.forget();
                Ok(())
            }
            Wish::Help => {
                output::say(HELP);
                Ok(())
            }
            Wish::Quit => return Ok(exit),
            Wish::Wrong(why) => Err(Failure::usage(why)),
        };
        if let Err(failure) = done {
            if failure.is_closed_pipe() {
                return Err(failure);
            }
            output::say(format_args!("gemma-ls: {failure}"));
            if talk.json() {
                output::print_json_line(&failure.to_json())?;
            }
            if exit == Exit::Ok && !input.is_terminal() {
                exit = failure.exit();
            }
        }
    }
}

fn ask(talk: &mut Talk<'_>, question: &str, interrupts: &Interrupts) -> Outcome {
    let cancel = interrupts.begin();
    let answer = talk.ask(question, &cancel);
    interrupts.end();
    let (finished, json) = answer?;
    if talk.json() {
        return output::print_json_line(&json);
    }
    if !output::ends_line(&finished.text) {
        output::print("\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_questions_or_commands() {
        for (line, wish) in [
            ("  ", Wish::Nothing),
            (" why? ", Wish::Ask("why?")),
            ("two\nlines", Wish::Ask("two\nlines")),
            ("/file a b.py", Wish::File("a b.py".into())),
            ("/file 'a b.py'", Wish::File("a b.py".into())),
            ("/clear", Wish::Clear),
            ("/help ", Wish::Help),
            ("/quit", Wish::Quit),
            ("/usr/bin/env is what?", Wish::Ask("/usr/bin/env is what?")),
            ("// what does this mean?", Wish::Ask("// what does this mean?")),
            ("/etc holds what?", Wish::Ask("/etc holds what?")),
        ] {
            assert_eq!(Wish::of(line), wish, "{line}");
        }
        for line in ["/file", "/nonsense", "/clear all", "/quit now"] {
            assert!(matches!(Wish::of(line), Wish::Wrong(_)), "{line}");
        }
    }
}
