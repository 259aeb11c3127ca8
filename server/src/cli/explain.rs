//! `gemma-ls explain`: what a picture shows, the text and the boxes in it, answers about it.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use gemma_engine::{AdapterChoice, CancelFlag, FinishReason, Picture, Precision, Sampling};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::failure::{Exit, Failure, Outcome};
use super::{Context, interrupt, output, session};
use crate::explain::{Answer, Explainer, Look, MOST_TILES, Options, Progress, Task, draw};
use crate::permission::Permission;
use crate::{chat, models};

const EXAMPLES: &str = "\
The picture is a PNG, JPEG, WebP, GIF or BMP, of at most 16384 pixels a side. A PaliGemma (a \"mix\" one) reads it:
what the whole shows, the text of overlapping tiles at its own resolution, an answer to the question. Where a
chat model is configured (the setting chatModel, or --chat-model), it gets these readings and writes the
explanation. A Gemma 3 with pictures (4B and up, as a HuggingFace folder) needs no other: it is asked directly.
Get one with `gemma-ls model pull paligemma2-3b-mix-448`.

Several questions may be asked about one picture: it is encoded and read once, which the timings show. With - in
place of a question they are read from standard input, one a line, as you type them.

Tasks (--task), for single readings:
  caption   one sentence about the whole
  ocr       the text, of all tiles
  answer    a short answer to QUESTION
  detect    boxes around every QUESTION (a thing, such as \"button\")
  segment   the same, with the sixteen codes of a mask each; the mask itself is not painted

Examples:
  gemma-ls explain screenshot.png
  gemma-ls explain screenshot.png \"What does the error mean?\" \"Which line is it in?\"
  gemma-ls explain screenshot.png --chat-model gemma-3-1b-it
  gemma-ls explain screenshot.png --task ocr > text.txt
  gemma-ls explain screenshot.png --task detect \"button\" --output boxes.png
  import -window root png:- | gemma-ls explain - --json

JSON: model, chat_model, width, height, tiles, readings (caption, text, answer: the last one), answers. Each of
these: task (explain or one of the above), question, text, found (label, x0, y0, x1, y1 in pixels, mask_codes),
finish_reason (stop, length, deadline, cancelled), timings (queue_ms, image_tokens, image_tokens_cached,
image_ms, prefill_tokens, cached_tokens, prefill_ms, decode_tokens, decode_ms,
decode_passes, draft_tokens, accepted_tokens, ttft_ms; all steps together).";

/// Explain a screenshot or another picture
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ExplainArgs {
    /// The picture; - for standard input
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// What to ask about it, one after the other; - to read questions from standard input
    #[arg(value_name = "QUESTION")]
    questions: Vec<String>,
    /// One reading instead of an explanation
    #[arg(long, value_name = "TASK")]
    task: Option<TaskName>,
    /// The model that looks: a name, a folder or a .gguf file [default: one of the configured ones that sees
    /// pictures, else one on this machine]
    #[arg(long, short, value_name = "MODEL")]
    model: Option<String>,
    /// The model that writes the explanation from what a PaliGemma read [default: the setting chatModel]
    #[arg(long, value_name = "MODEL")]
    chat_model: Option<String>,
    /// Write the picture with the boxes of detect or segment to this PNG file
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Longest answer, in tokens
    #[arg(short = 'n', long, value_name = "N", default_value_t = chat::MAX_TOKENS)]
    max_tokens: usize,
    /// Most tiles to read a large picture in; 1: only as a whole
    #[arg(long, value_name = "N", default_value_t = MOST_TILES, value_parser = tiles)]
    tiles: usize,
    /// Another seed gives another explanation
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print one JSON object instead of streaming text
    #[arg(long)]
    pub json: bool,
}

/// The tasks by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TaskName {
    Caption,
    Ocr,
    Answer,
    Detect,
    Segment,
}

fn tiles(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=256) => Ok(number),
        _ => Err("it must be a number from 1 to 256".to_owned()),
    }
}

/// Runs `gemma-ls explain`.
pub fn run(context: &Context, args: &ExplainArgs) -> Outcome<Exit> {
    check(args)?;
    let picture = Arc::new(open(context, &args.image)?);
    context.report_problems();
    let cancel = interrupt::flag();
    let Loaded { explainer, model, chat_model } = load(context, args, cancel.clone())?;
    let mut look = explainer.look(picture);

    let mut answers = Vec::new();
    let mut exit = Exit::Ok;
    for question in questions(args) {
        let question = question?;
        let task = task(args.task, question.as_deref());
        let mut screen = Screen::new(context.global.quiet, args.json);
        let mut show = |progress: Progress<'_>| {
            if !screen.show(progress) {
                cancel.cancel();
            }
        };
        let answer = match &task {
            Some(task) => explainer.task(&look, task, &mut show),
            None => explainer.explain(&mut look, question.as_deref(), &mut show),
        };
        screen.end()?;
        let answer = answer?;
        if task.as_ref().is_some_and(Task::gives_boxes) {
            show_boxes(args, &look, &answer)?;
        }
        if !args.json && !context.global.quiet {
            output::say(spent(&answer));
        }
        answers.push(as_json(task.as_ref(), question.as_deref(), &answer));
        if answer.finish_reason == FinishReason::Cancelled {
            exit = Exit::Interrupted;
            break;
        }
    }
    if args.json {
        output::print_json(&json!({
            "model": model,
            "chat_model": chat_model,
            "width": look.picture().width(),
            "height": look.picture().height(),
            "tiles": look.tiles(),
            "readings": look.readings(),
            "answers": answers,
        }))?;
    }
    Ok(exit)
}

/// Refuses command lines that contradict themselves, before anything is read.
fn check(args: &ExplainArgs) -> Outcome {
    let boxes = matches!(args.task, Some(TaskName::Detect | TaskName::Segment));
    if args.output.is_some() && !boxes {
        return Err(Failure::usage("--output: only --task detect and --task segment give boxes to draw"));
    }
    if args.output.is_some() && args.questions.len() > 1 {
        return Err(Failure::usage("--output: one file holds the boxes of one thing; ask for one at a time"));
    }
    let asks = args.questions.iter().any(|question| question == "-");
    if asks && args.image == Path::new("-") {
        return Err(Failure::usage("standard input cannot be the picture and the questions at once"));
    }
    if asks && args.questions.len() > 1 {
        return Err(Failure::usage("- reads all questions from standard input, and stands alone"));
    }
    if let (Some(TaskName::Caption | TaskName::Ocr), Some(question)) = (args.task, args.questions.first()) {
        return Err(Failure::usage(format!("{question}: --task caption and --task ocr take no question")));
    }
    if let (Some(TaskName::Answer | TaskName::Detect | TaskName::Segment), []) =
        (args.task, &args.questions[..])
    {
        return Err(Failure::usage("this task wants to be told what, behind the picture")
            .remedy("For example: gemma-ls explain shot.png --task detect \"button\""));
    }
    if let Some(empty) = args.questions.iter().find(|question| question.trim().is_empty()) {
        return Err(Failure::usage(format!("\"{empty}\" is no question")));
    }
    Ok(())
}

/// Reads the picture, unless it is one of the files that no model reads.
fn open(context: &Context, path: &Path) -> Outcome<Picture> {
    if path == Path::new("-") {
        return Ok(Picture::read(std::io::stdin().lock(), "standard input")?);
    }
    let location = std::path::absolute(path).map_err(|e| Failure::file(path, &e))?;
    Permission::new(&context.settings).allow_reading(&location, path.display())?;
    Ok(Picture::open(path)?)
}

/// The loaded models, and what they are called.
struct Loaded {
    explainer: Explainer,
    model: String,
    chat_model: Option<String>,
}

fn load(context: &Context, args: &ExplainArgs, cancel: CancelFlag) -> Outcome<Loaded> {
    let settings = &context.settings;
    let precision = Precision::from(settings.precision);
    let choice = models::choose_seeing(args.model.as_deref(), settings)?;
    let writer = match args.task {
        None => models::choose_writer(args.chat_model.as_deref(), settings, &choice)?,
        // A single reading is not written about.
        Some(_) => None,
    };

    let engine = session::start(context)?;
    let model = choice.name.clone();
    let reader = session::load(context, &engine, choice, AdapterChoice::None, precision)?;
    let options = Options {
        tiles: args.tiles,
        max_tokens: args.max_tokens,
        sampling: Sampling { seed: args.seed, ..chat::sampling() },
    };
    let explainer = Explainer::new(engine.clone(), reader, options, cancel)?;
    match writer {
        Some(writer) if !explainer.converses() => {
            let chat_model = Some(writer.name.clone());
            let writer = session::load(context, &engine, writer, AdapterChoice::None, precision)?;
            Ok(Loaded { explainer: explainer.with_writer(writer), model, chat_model })
        }
        unused => {
            if unused.is_some() && args.chat_model.is_some() && !context.global.quiet {
                output::say(format_args!("{model} explains the picture itself: --chat-model is not used."));
            }
            Ok(Loaded { explainer, model, chat_model: None })
        }
    }
}

/// The questions in order; `None` where nothing is asked.
fn questions(args: &ExplainArgs) -> Box<dyn Iterator<Item = Outcome<Option<String>>> + '_> {
    match &args.questions[..] {
        [] => Box::new(std::iter::once(Ok(None))),
        [all] if all == "-" => Box::new(typed()),
        questions => Box::new(questions.iter().map(|question| Ok(Some(question.clone())))),
    }
}

/// Questions from standard input, one a line, asked for where somebody types them; empty lines are passed over.
fn typed() -> impl Iterator<Item = Outcome<Option<String>>> {
    let prompt = || {
        if std::io::stdin().is_terminal() {
            output::say("Your question (an end of input, Ctrl-D, ends this):");
        }
    };
    std::iter::from_fn(move || {
        loop {
            prompt();
            let mut line = String::new();
            match std::io::stdin().lock().read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) if line.trim().is_empty() => {}
                Ok(_) => return Some(Ok(Some(line.trim().to_owned()))),
                Err(e) => return Some(Err(Failure::file(Path::new("standard input"), &e))),
            }
        }
    })
}

/// The task that was named, with what it is about.
fn task(name: Option<TaskName>, about: Option<&str>) -> Option<Task> {
    let about = about.unwrap_or_default().to_owned();
    name.map(|name| match name {
        TaskName::Caption => Task::Caption,
        TaskName::Ocr => Task::Ocr,
        TaskName::Answer => Task::Answer(about),
        TaskName::Detect => Task::Detect(about),
        TaskName::Segment => Task::Segment(about),
    })
}

/// What a person sees while a picture is explained: a spinner with the step, then text.
struct Screen {
    quiet: bool,
    json: bool,
    spinner: Option<ProgressBar>,
    /// Whether the text so far ends inside a line.
    open_line: bool,
    failed: Option<Failure>,
}

impl Screen {
    fn new(quiet: bool, json: bool) -> Self {
        Self { quiet, json, spinner: None, open_line: false, failed: None }
    }

    /// False when nobody reads any more.
    fn show(&mut self, progress: Progress<'_>) -> bool {
        match progress {
            Progress::Step(step) => {
                let words = step.to_string();
                match &self.spinner {
                    Some(spinner) => spinner.set_message(words),
                    // A spinner would overwrite a line that is being written.
                    None if self.open_line => {}
                    None => self.spinner = Some(output::spinner(self.quiet, words)),
                }
            }
            Progress::Text(_) if self.json => {}
            Progress::Text(text) => {
                self.clear();
                self.open_line = !text.ends_with('\n');
                if self.failed.is_none() {
                    self.failed = output::print(text).err();
                }
            }
        }
        self.failed.is_none()
    }

    fn clear(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }

    /// Ends the text with a line end: another answer or a shell's prompt may follow.
    fn end(mut self) -> Outcome {
        self.clear();
        match self.failed.take() {
            Some(failure) => Err(failure),
            None if self.open_line => output::print("\n"),
            None => Ok(()),
        }
    }
}

/// Prints what was found, and draws it.
fn show_boxes(args: &ExplainArgs, look: &Look, answer: &Answer) -> Outcome {
    if let Some(path) = &args.output {
        let png = draw::png(look.picture(), &answer.found)?;
        std::fs::write(path, png).map_err(|e| Failure::file(path, &e))?;
    }
    if args.json {
        return Ok(());
    }
    if answer.found.is_empty() {
        return output::print("nothing was found\n");
    }
    for (found, colour) in answer.found.iter().zip(draw::legend(&answer.found)) {
        let place = format!("{},{} to {},{}", found.x0, found.y0, found.x1, found.y1);
        let colour = if args.output.is_some() { format!(" ({colour})") } else { String::new() };
        let codes =
            found.mask_codes.as_ref().map_or(String::new(), |codes| format!("  mask codes {codes:?}"));
        output::print(&format!("{}{colour}: {place}{codes}\n", found.label))?;
    }
    Ok(())
}

/// Where the time went, in a line.
fn spent(answer: &Answer) -> String {
    let timings = &answer.timings;
    let seconds = |ms: f64| ms / 1e3;
    format!(
        "[{} image tokens encoded in {:.1} s, {} kept from before; {} tokens read in {:.1} s, {} written in {:.1} s]",
        timings.image_tokens,
        seconds(timings.image_ms),
        timings.image_tokens_cached,
        timings.prefill_tokens,
        seconds(timings.prefill_ms),
        timings.decode_tokens,
        seconds(timings.decode_ms),
    )
}

fn as_json(task: Option<&Task>, question: Option<&str>, answer: &Answer) -> Value {
    json!({
        "task": task.map_or_else(|| "explain".to_owned(), Task::to_string),
        "question": question,
        "text": answer.text,
        "found": answer.found,
        "finish_reason": answer.finish_reason,
        "timings": answer.timings,
    })
}

#[cfg(test)]
mod tests {
    use gemma_engine::Timings;

    use super::*;

    fn args(line: &str) -> ExplainArgs {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            args: ExplainArgs,
        }
        let words = std::iter::once("explain").chain(line.split_whitespace());
        <Alone as clap::Parser>::try_parse_from(words).unwrap_or_else(|e| panic!("{line}: {e}")).args
    }

    #[test]
    fn command_lines_that_make_no_sense_are_refused() {
        for (line, sound) in [
            ("a.png", true),
            ("a.png what?", true),
            ("a.png what? where?", true),
            ("a.png -", true),
            ("a.png - what?", false),
            ("- -", false),
            ("a.png --task ocr", true),
            ("a.png what? --task ocr", false),
            ("a.png --task detect", false),
            ("a.png cat --task detect -o b.png", true),
            ("a.png cat dog --task detect -o b.png", false),
            ("a.png -o b.png", false),
        ] {
            let checked = check(&args(line));
            assert_eq!(checked.is_ok(), sound, "{line}");
            assert!(checked.err().is_none_or(|failure| failure.exit() == Exit::Usage), "{line}");
        }
    }

    #[test]
    fn the_help_names_all_of_the_json() {
        let found = crate::explain::marks::Found {
            label: "x".into(),
            x0: 0,
            y0: 0,
            x1: 1,
            y1: 1,
            mask_codes: Some(vec![0]),
        };
        let answer = Answer {
            text: String::new(),
            found: vec![found],
            finish_reason: FinishReason::Stop,
            timings: Timings::default(),
        };
        let json = as_json(None, None, &answer);
        let fields =
            |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
        let names = [fields(&json), fields(&json["timings"]), fields(&json["found"][0])].concat();
        for name in names {
            assert!(EXAMPLES.contains(&name), "the help does not name {name}");
        }
    }

    #[test]
    fn a_picture_that_may_hold_secrets_is_not_read() {
        let mut context = Context::for_tests();
        context.settings.secret_files = vec!["*.secret.png".into()];
        let failure = open(&context, Path::new("x.secret.png")).expect_err("refused");
        assert!(failure.to_string().contains("may hold secrets"), "{failure}");
        let failure = open(&context, Path::new("x.png")).expect_err("there is none");
        assert_eq!(failure.exit(), Exit::Missing);
    }
}
