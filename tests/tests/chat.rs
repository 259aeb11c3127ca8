//! Conversations with the shipped binary: what is reused, what is left out, and what commands do.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use gemma_tests::binary::{self, Ran, run_in, run_with_input};
use gemma_tests::places;
use gemma_tests::synthetic::Network;
use serde_json::Value;
use tempfile::TempDir;

const SOURCE: &str = "def half(n):\n    return n / 2\n";

const GEMMA_3: &str = include_str!("../fixtures/templates/gemma-3-it.jinja");
const GEMMA_2: &str = include_str!("../fixtures/templates/gemma-2-it.jinja");

/// A folder with a source file, and a tiny model with turns whose tokens are mostly single bytes.
fn workspace(template: Option<&str>) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::write(folder.path().join("half.py"), SOURCE).expect("the folder can be written");
    Network::random(7).gguf().with_turns(template).write(&folder.path().join("tiny-it.gguf"), 3);
    folder
}

fn arguments(more: &[&str]) -> Vec<String> {
    let arguments = ["chat", "half.py", "--model", "./tiny-it.gguf", "--log", "warn", "-n", "8"];
    arguments.iter().chain(more).map(|a| (*a).to_owned()).collect()
}

/// Asks these lines, as JSON.
fn conversation(folder: &Path, lines: &[&str]) -> (Vec<Value>, Ran) {
    let ran = run_with_input(folder, arguments(&["--json"]), &lines.join("\n"));
    let objects = ran.out.lines().map(|line| {
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?} is no JSON ({e}): {ran:?}"))
    });
    (objects.collect(), ran)
}

fn timing(answer: &Value, name: &str) -> u64 {
    answer["timings"][name].as_u64().unwrap_or_else(|| panic!("no {name}: {answer:#}"))
}

/// Tokens of an answer's prompt.
fn prompt(answer: &Value) -> u64 {
    timing(answer, "cached_tokens") + timing(answer, "prefill_tokens")
}

#[test]
fn a_follow_up_reuses_the_file_and_what_was_said() {
    for template in [None, Some(GEMMA_2), Some(GEMMA_3)] {
        let folder = workspace(template);
        let (answers, ran) = conversation(folder.path(), &["why?", "", "how?", "so?"]);
        assert_eq!((answers.len(), ran.code), (3, Some(0)), "an empty line asks nothing: {ran:?}");
        assert_eq!(timing(&answers[0], "cached_tokens"), 0);
        for pair in answers.windows(2) {
            let generated = timing(&pair[0], "decode_tokens");
            assert!(generated > 0, "the model says something");
            // The last token that was generated was never read.
            assert!(timing(&pair[1], "cached_tokens") >= prompt(&pair[0]) + generated - 1, "{pair:#?}");
        }
    }
}

#[test]
fn the_published_templates_make_the_prompt_of_the_built_in_layout_and_a_broken_one_is_left_aside() {
    let of = |template: Option<&str>| {
        let folder = workspace(template);
        let (answers, ran) = conversation(folder.path(), &["why?", "how?"]);
        let texts: Vec<Value> = answers.iter().map(|answer| answer["tokens"].clone()).collect();
        (answers.iter().map(prompt).collect::<Vec<_>>(), texts, ran.err)
    };
    let built_in = of(None);
    assert!(!built_in.2.contains("template"), "{}", built_in.2);
    for template in [GEMMA_2, GEMMA_3] {
        assert_eq!(of(Some(template)), built_in);
    }
    for broken in ["{% for %}", "{{ raise_exception('no') }}", "nothing of what was said"] {
        let (prompts, texts, log) = of(Some(broken));
        assert_eq!((prompts, texts), (built_in.0.clone(), built_in.1.clone()), "{broken}");
        assert!(log.contains("chat template is not used"), "{broken}: {log}");
    }
    let wordy = GEMMA_2.replace("<start_of_turn>model", "Think.<start_of_turn>model");
    let added = of(Some(&wordy)).0[0] - built_in.0[0];
    assert_eq!(added, "Think.".len() as u64, "a sound template is followed");
}

#[test]
fn the_oldest_questions_are_left_out_and_the_file_stays_computed() {
    let folder = workspace(None);
    let questions: Vec<String> = (0..12).map(|n| format!("question number {n:02}?")).collect();
    let questions: Vec<&str> = questions.iter().map(String::as_str).collect();
    let (answers, ran) = conversation(folder.path(), &questions);
    assert_eq!(answers.len(), questions.len(), "{ran:?}");
    let of_file = prompt(&answers[0]) - questions[0].len() as u64 - 20;
    assert!(of_file > SOURCE.len() as u64);
    let dropping: Vec<&Value> =
        answers.iter().filter(|answer| answer["dropped"]["turns"].as_u64() > Some(0)).collect();
    assert!(!dropping.is_empty() && dropping.len() < 6, "not with every question: {answers:#?}");
    assert_eq!(ran.err.matches("Left out, to fit the model's context: the oldest").count(), dropping.len());
    for answer in &answers[1..] {
        assert!(timing(answer, "cached_tokens") >= of_file, "the file is computed once: {answer:#}");
        assert_eq!((&answer["dropped"]["lines_below"], prompt(answer) <= 504), (&0.into(), true));
    }
}

#[test]
fn a_file_that_does_not_fit_is_cut_and_said_so_once() {
    let folder = workspace(None);
    std::fs::write(folder.path().join("half.py"), SOURCE.repeat(40)).expect("the folder can be written");
    let (answers, ran) = conversation(folder.path(), &["why?", "how?"]);
    for answer in &answers {
        assert!(answer["dropped"]["lines_below"].as_u64() > Some(40), "{answer:#}");
    }
    assert_eq!(ran.err.matches("lines of the file").count(), 1, "{}", ran.err);
    let generated = timing(&answers[0], "decode_tokens");
    assert!(timing(&answers[1], "cached_tokens") >= prompt(&answers[0]) + generated - 1);
}

#[test]
fn commands_change_the_file_and_forget() {
    let folder = workspace(None);
    std::fs::write(folder.path().join("other.py"), "x = 1\n").expect("the folder can be written");
    std::fs::write(folder.path().join(".env"), "TOKEN=x").expect("the folder can be written");
    let lines = [
        "why?",
        "/clear",
        "why?",
        "/file other.py",
        "/file no.py",
        "/file .env",
        "/wrong",
        "how?",
        "/quit",
        "x",
    ];
    let (answers, ran) = conversation(folder.path(), &lines);
    let said = |n: usize| answers[n]["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert_eq!(answers.len(), 6, "{ran:?}");
    assert_eq!(prompt(&answers[1]), prompt(&answers[0]), "what was said is forgotten");
    assert_eq!(
        timing(&answers[1], "prefill_tokens"),
        0,
        "and the same prompt is known whole: {:#}",
        answers[1]
    );
    assert!(
        said(2).contains("no.py") && said(3).contains("secrets") && said(4).contains("/wrong"),
        "{ran:?}"
    );
    assert!(timing(&answers[5], "cached_tokens") < 60, "another file is another beginning: {:#}", answers[5]);
    assert_eq!(ran.code, Some(3), "the first failure's");
}

#[test]
fn a_conversation_streams_one_answer_after_the_other() {
    let folder = workspace(Some(GEMMA_3));
    let ran = run_with_input(folder.path(), arguments(&["-v"]), "why?\nhow?\n").expect_code(0);
    let (answers, _) = conversation(folder.path(), &["why?", "how?"]);
    let texts: Vec<&str> = answers.iter().filter_map(|answer| answer["text"].as_str()).collect();
    assert!(ran.out.starts_with(texts[0]) && ran.out.trim_end().ends_with(texts[1].trim_end()), "{ran:?}");
    assert!(ran.out.ends_with('\n'));
    assert_eq!(ran.err.matches("tokens reused").count(), 2, "{}", ran.err);
    let quiet = run_with_input(folder.path(), arguments(&["--quiet"]), "why?\n").expect_code(0);
    assert_eq!(quiet.err, "");
}

#[test]
fn a_file_is_read_again_before_each_question() {
    let folder = workspace(None);
    let path = folder.path().join("half.py");
    let mut talk = Talk::begin(folder.path(), &arguments(&["--json"]));
    let before = talk.ask("why?");
    // A line more at its end, then one at its beginning.
    std::fs::write(&path, format!("{SOURCE}#more\n")).expect("the folder can be written");
    let after = talk.ask("why?");
    let said = timing(&before, "decode_tokens");
    assert!(prompt(&after) > prompt(&before) + said + "3|#more\n".len() as u64);
    let reused = timing(&after, "cached_tokens");
    assert!(reused > SOURCE.len() as u64 && reused < prompt(&before), "up to the edit: {after:#}");
    std::fs::write(&path, format!("#{SOURCE}#more\n")).expect("the folder can be written");
    assert!(timing(&talk.ask("why?"), "cached_tokens") < reused - SOURCE.len() as u64);
    assert_eq!(talk.end(), Some(0));

    let unnumbered =
        run_in(folder.path(), arguments(&["why?", "--no-line-numbers", "--json"])).expect_code(0);
    let numbered = run_in(folder.path(), arguments(&["why?", "--json"])).expect_code(0);
    assert!(prompt(&unnumbered.json()) < prompt(&numbered.json()));
}

/// A conversation that goes on while the test looks at its answers.
struct Talk {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Talk {
    fn begin(folder: &Path, arguments: &[String]) -> Self {
        let mut command = Command::new(binary::path());
        command.args(arguments).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?} does not run: {e}"));
        let questions = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("it is a pipe"));
        Self { child, questions, answers }
    }

    fn say(&mut self, question: &str) {
        let questions = self.questions.as_mut().expect("the conversation goes on");
        writeln!(questions, "{question}").expect("it listens");
    }

    fn ask(&mut self, question: &str) -> Value {
        self.say(question);
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?} is no JSON: {e}"))
    }

    fn end(mut self) -> Option<i32> {
        drop(self.questions.take());
        self.child.wait().expect("a child can be waited for").code()
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_the_answer_and_not_the_conversation() {
    let folder = workspace(None);
    let model = places::real_model().to_string_lossy().into_owned();
    let arguments = ["chat", "--model", &model, "-n", "1000"].map(str::to_owned);
    let mut talk = Talk::begin(folder.path(), &arguments);
    talk.say("Count from one to a thousand: one, two, three, four, five, six, ...");
    let mut first = [0];
    talk.answers.read_exact(&mut first).expect("it answers");
    let id = talk.child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status().expect("there is a kill");
    assert!(sent.success());
    talk.say("/clear");
    drop(talk.questions.take());
    let mut rest = String::new();
    talk.answers.read_to_string(&mut rest).expect("it ends");
    assert!(rest.split_whitespace().count() < 500, "the answer was not stopped: {rest}");
    assert_eq!(talk.end(), Some(0), "the conversation went on to its own end");
}

#[test]
fn a_base_model_keeps_up_a_conversation_too() {
    let folder = workspace(None);
    let model = places::real_model().to_string_lossy().into_owned();
    let arguments = ["chat", "half.py", "--model", &model, "-n", "24", "--json"];
    let ran = run_with_input(folder.path(), arguments, "What does half do?\nAnd for 3?\n").expect_code(0);
    let answers: Vec<Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    assert_eq!(answers.len(), 2);
    for answer in &answers {
        assert!(!answer["text"].as_str().expect("a text").contains("\nQuestion:"), "{answer:#}");
    }
    let first = &answers[0];
    assert!(timing(&answers[1], "cached_tokens") + 4 >= prompt(first), "{answers:#?}");
}
