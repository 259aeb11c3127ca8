//! PaliGemma, PaliGemma 2 and Gemma 3 with pictures against the reference's numbers: tiny models with random
//! weights in which every term of the published networks shows.

use std::path::Path;
use std::sync::Arc;

use gemma_engine::{ErrorKind, LogitsRequest, Picture, Precision, Priority, Sampling, Stop};
use gemma_tests::binary::run;
use gemma_tests::golden::{self, Case, Prompt};
use gemma_tests::models::{Arithmetic, Generated, Loaded, certainty};
use gemma_tests::numbers::{Findings, Matrix, argmax, logprob, worst};
use gemma_tests::places;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

/// Each with the files of its pictures.
const CASES: [(&str, &[&str]); 3] = [
    ("paligemma", &["image.png"]),
    ("paligemma2", &["image.png"]),
    ("gemma3-mm", &["image0.png", "image1.png"]),
];

/// The precisions that owe the reference's f32 numbers. These checkpoints are f32, so all do.
const PRECISIONS: [Precision; 3] = [Precision::Exact, Precision::Reference, Precision::Fast];

/// Every case with these precisions at every level of instructions.
fn ways(
    precisions: &[Precision],
) -> impl Iterator<Item = ((&'static str, &'static [&'static str]), Arithmetic)> {
    let all = Arithmetic::all(precisions);
    CASES.into_iter().flat_map(move |case| all.clone().into_iter().map(move |how| (case, how)))
}

/// One case, loaded.
struct Subject {
    case: Case,
    loaded: Loaded,
    pictures: Vec<Arc<Picture>>,
    what: String,
}

impl Subject {
    fn new((name, pictures): (&str, &[&str]), arithmetic: impl Into<Arithmetic>) -> Self {
        let arithmetic = arithmetic.into();
        let case = Case::read(name);
        let folder = case.checkpoint("config.json");
        let loaded = Loaded::new(folder.path(), arithmetic);
        let open = |file: &&str| Picture::open(&places::golden(name).join(file));
        let pictures = pictures.iter().map(open).collect::<Result<Vec<_>, _>>();
        let pictures = pictures.unwrap_or_else(|e| panic!("{e}")).into_iter().map(Arc::new).collect();
        Self { case, loaded, pictures, what: format!("{name} ({arithmetic})") }
    }

    fn all(precisions: &[Precision]) -> impl Iterator<Item = Self> {
        ways(precisions).map(|(case, arithmetic)| Self::new(case, arithmetic))
    }

    /// A prompt, or more tokens that begin like it, as a request.
    fn request(&self, prompt: &Prompt, ids: &[u32], split: Option<Vec<usize>>) -> LogitsRequest {
        let pictures = self.case.pixels()[..prompt.pictures()].to_vec();
        LogitsRequest {
            ids: ids.to_vec(),
            split,
            pictures,
            prefix: self.case.prefix(prompt),
            base_alone: false,
        }
    }

    /// Where a prompt may be cut in two: not where tokens see forward.
    fn cuts(&self, prompt: &Prompt) -> Vec<usize> {
        let prefix = self.case.prefix(prompt).unwrap_or(0);
        let image = |at: usize| prompt.token_type_ids[at] == 1;
        let inside =
            |at: usize| at < prefix || (self.case.prefix(prompt).is_none() && image(at - 1) && image(at));
        (1..prompt.ids.len()).filter(|&at| !inside(at)).collect()
    }

    /// Every way of feeding a prompt in two pieces, all at once, and in pieces as small as can be.
    fn splits(&self, prompt: &Prompt) -> Vec<Option<Vec<usize>>> {
        let (len, cuts) = (prompt.ids.len(), self.cuts(prompt));
        let mut ways: Vec<_> = cuts.iter().map(|&at| Some(vec![at, len - at])).collect();
        let ends = cuts.iter().copied().chain([len]);
        let begins = [0].into_iter().chain(cuts.iter().copied());
        ways.push(Some(ends.zip(begins).map(|(end, begin)| end - begin).collect()));
        ways.push(None);
        ways
    }

    fn greedy(&self, prompt: &Prompt, ids: &[u32], tokens: usize) -> Generated {
        self.loaded.greedy_about(ids, &self.pictures[..prompt.pictures()], tokens)
    }
}

#[test]
fn pictures_become_the_references_features() {
    let mut findings = Findings::default();
    for subject in Subject::all(&PRECISIONS) {
        let vision = subject.loaded.model.config().vision.clone().expect("the case reads pictures");
        let features = &subject.case.array("vision.features").data;
        let each = features.len() / subject.pictures.len();
        assert_eq!(each, vision.tokens * subject.loaded.model.config().hidden);
        let pixels = subject.case.pixels();
        for (at, (picture, golden)) in subject.pictures.iter().zip(features.chunks(each)).enumerate() {
            let values = picture.pixel_values(vision.image_size, vision.resample());
            let distance = worst(&values, &pixels[at]);
            findings.check(distance <= 1e-6, || format!("{} pixels {at}: {distance:e}", subject.what));
            let ours = subject.loaded.engine.picture_features(&subject.loaded.model, pixels[at].clone());
            let distance = worst(&ours.unwrap_or_else(|e| panic!("{e}")), golden);
            findings.check(distance <= 1e-4, || format!("{} features {at}: {distance:e}", subject.what));
        }
    }
    findings.assert_none();
}

#[test]
fn one_pass_and_pieces_give_the_references_logits() {
    let mut findings = Findings::default();
    for subject in Subject::all(&PRECISIONS) {
        for prompt in &subject.case.golden.prompts {
            for split in subject.splits(prompt) {
                let what = format!("{} {} as {split:?}", subject.what, prompt.name);
                let logits = subject.loaded.logits_of(subject.request(prompt, &prompt.ids, split));
                let distance = worst(&logits.data, &subject.case.tensor(&prompt.logits).data);
                findings.check(distance <= prompt.tolerance(), || format!("{what}: {distance:e}"));
            }
        }
    }
    findings.assert_none();
}

#[test]
fn greedy_tokens_are_the_references() {
    let mut findings = Findings::default();
    for subject in Subject::all(&PRECISIONS) {
        for greedy in &subject.case.golden.greedy {
            let prompt = subject.case.prompt(&greedy.prompt);
            let golden = subject.case.tensor(&greedy.logits);
            let what = format!("{} behind {}", subject.what, prompt.name);

            let (first, last) = (prompt.ids.len(), greedy.ids.len() - 1);
            let ids = [&prompt.ids[..], &greedy.ids[..last]].concat();
            let one_by_one = [vec![first], vec![1; last]].concat();
            for split in [None, Some(one_by_one)] {
                let mut request = subject.request(prompt, &ids, split);
                request.prefix = request.prefix.map(|_| first);
                let logits = subject.loaded.logits_of(request);
                let distance = worst(logits.slice(first - 1..ids.len()), &golden.data);
                findings.check(distance <= prompt.tolerance(), || format!("{what}: {distance:e}"));
            }

            let generated = subject.greedy(prompt, &prompt.ids, greedy.ids.len());
            findings.check(generated.ids() == greedy.ids, || {
                format!("{what}: {:?}, not {:?}", generated.ids(), greedy.ids)
            });
            for (step, token) in generated.tokens.iter().enumerate() {
                let distance = (f64::from(certainty(token)) - logprob(golden.row(step), token.id)).abs();
                findings.check(distance <= 2.0 * f64::from(prompt.tolerance()), || {
                    format!("{what}: log-probability {step} is {distance:e} off")
                });
            }
        }
    }
    findings.assert_none();
}

/// What a generation gave, to the bit.
fn bits(generated: &Generated) -> Vec<(u32, u32)> {
    generated.tokens.iter().map(|token| (token.id, certainty(token).to_bits())).collect()
}

#[test]
fn questions_about_pictures_get_the_answers_of_a_cold_start() {
    for (case, arithmetic) in ways(&[Precision::Exact]) {
        let warm = Subject::new(case, arithmetic);
        let prompt = &warm.case.golden.prompts[0];
        let tokens = warm.loaded.model.config().vision.as_ref().map_or(0, |vision| vision.tokens);
        let other = Arc::new(warm.pictures[0].crop(1, 2, 40, 30));
        let mut question = prompt.ids.clone();
        if let Some(last) = question.last_mut() {
            *last += 1;
        }
        let asked = [
            (&prompt.ids, &warm.pictures[0], 0),
            (&prompt.ids, &warm.pictures[0], tokens),
            (&question, &warm.pictures[0], tokens),
            (&question, &other, 0),
            (&prompt.ids, &other, tokens),
            (&prompt.ids, &warm.pictures[0], tokens),
        ];
        for (step, (ids, picture, known)) in asked.into_iter().enumerate() {
            let what = format!("{}, question {step}", warm.what);
            let pictures = std::slice::from_ref(picture);
            let answer = warm.loaded.greedy_about(ids, pictures, 6);
            let cold = Subject::new(case, arithmetic).loaded.greedy_about(ids, pictures, 6);
            assert_eq!(bits(&answer), bits(&cold), "{what}");
            let timings = answer.finished.timings;
            assert_eq!(
                (timings.image_tokens, timings.image_tokens_cached),
                (tokens - known, known),
                "{what}"
            );
            assert_eq!(timings.cached_tokens + timings.prefill_tokens, ids.len(), "{what}");
            if warm.case.name == "gemma3-mm" && known > 0 {
                // Text before the question is causal: what was read of the picture stands.
                assert!(timings.cached_tokens >= ids.len() - 2 || step == 4, "{what}: {timings:?}");
            }
        }
    }
}

#[test]
fn a_picture_changes_the_answer() {
    for case in CASES {
        let subject = Subject::new(case, Precision::Exact);
        let prompt = &subject.case.golden.prompts[0];
        let other = Arc::new(subject.pictures[0].crop(1, 2, 40, 30));
        let one = subject.loaded.greedy_about(&prompt.ids, &subject.pictures[..1], 1);
        let two = subject.loaded.greedy_about(&prompt.ids, &[other], 1);
        assert_ne!(one.tokens[0].logprob, two.tokens[0].logprob, "{}", subject.what);
    }
}

#[test]
fn a_gemma_3_without_its_tower_is_a_model_of_text() {
    let case = Case::read("gemma3-mm");
    let folder = case.checkpoint("config.json");
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).expect("the case has weights");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("they are safetensors");
    let text = file.tensors().into_iter().filter(|(name, _)| name.starts_with("language_model."));
    let kept = safetensors::serialize(text, None).expect("a part of them too");
    std::fs::write(&path, kept).expect("the folder can be written");

    let loaded = Loaded::new(folder.path(), Precision::Exact);
    assert_eq!(loaded.model.config().vision, None);
    let prompt = case.prompt("text_only");
    let logits: Matrix = loaded.logits(&prompt.ids, None);
    assert!(worst(&logits.data, &case.tensor(&prompt.logits).data) <= prompt.tolerance());
    assert!(argmax(logits.row(0)) < logits.cols);
}

#[test]
fn senseless_pictures_are_refused() {
    let subject = Subject::new(CASES[2], Precision::Exact);
    let Loaded { engine, model } = &subject.loaded;
    let prompt = subject.case.prompt("one_image");
    let sound = || subject.request(prompt, &prompt.ids, None);
    let second = subject.case.pixels()[1].clone();
    for (request, said) in [
        (LogitsRequest { pictures: Vec::new(), ..sound() }, "1 runs of image tokens stand for 0 pictures"),
        (LogitsRequest { pictures: [sound().pictures, vec![second]].concat(), ..sound() }, "for 2 pictures"),
        (
            LogitsRequest { ids: prompt.ids[..8].to_vec(), ..sound() },
            "3 image tokens from 5 on, a picture takes 4",
        ),
        (LogitsRequest { pictures: vec![vec![0.5; 12]], ..sound() }, "12 numbers, the tower takes 9408"),
        (LogitsRequest { split: Some(vec![7, 8]), ..sound() }, "7 lies inside 5..9"),
    ] {
        let error = engine.logits(model, request).expect_err(said);
        assert_eq!(error.kind(), ErrorKind::Input, "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
    let text = Loaded::new(Case::read("gemma1-mqa").checkpoint("config.json").path(), Precision::Exact);
    let request = LogitsRequest { ids: vec![2, 3], pictures: vec![vec![0.5]], ..LogitsRequest::default() };
    let error = text.engine.logits(&text.model, request).expect_err("it has no tower");
    assert!(error.to_string().contains("gemma is a model of text and reads no pictures"), "{error}");
}

#[test]
fn a_long_prompt_gives_way_to_a_keystroke_and_its_answer_stays_the_same() {
    // Longer than a chunk, and seen in both directions: computed a layer at a time.
    let text = |seed: u32| (0..150).map(move |i| 3 + (i * 37 + seed) % 240);
    for case in &CASES[..2] {
        let subject = Subject::new(*case, Precision::Reference);
        let prompt = subject.case.prompt("prefix");
        let image = *prompt.ids.first().expect("it begins with the picture");
        let images = prompt.ids.iter().filter(|&&id| id == image).count();
        let about: Vec<u32> = [image].repeat(images).into_iter().chain([2]).chain(text(5)).collect();
        let keystroke: Vec<u32> = std::iter::once(2).chain(text(90)).take(20).collect();
        let stop = || Stop { ignore_eos: true, ..Stop::default() };

        let alone = Subject::new(*case, Precision::Reference).loaded;
        let chat = alone.greedy_about(&about, &subject.pictures, 3);
        let typed = alone.greedy(&keystroke, 3);
        let logits = subject.loaded.logits_of(LogitsRequest {
            ids: about.clone(),
            pictures: subject.case.pixels(),
            ..LogitsRequest::default()
        });
        let first = &chat.tokens[0];
        let expected = logprob(logits.row(about.len() - 1), first.id);
        assert!((f64::from(certainty(first)) - expected).abs() < 1e-4, "{}: layer by layer", subject.what);

        let Loaded { engine, .. } = &subject.loaded;
        let ask = |prompt: &[u32], pictures: &[Arc<Picture>]| {
            subject.loaded.request(prompt, pictures.to_vec(), 3, Sampling::default(), stop())
        };
        let long = engine.submit(ask(&about, &subject.pictures));
        let mut urgent = ask(&keystroke, &[]);
        urgent.priority = Priority::Completion;
        let urgent = engine.submit(urgent);
        let urgent = urgent.finish_blocking(|_| {}).unwrap_or_else(|e| panic!("{e}"));
        let long = long.finish_blocking(|_| {}).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(urgent.tokens, typed.ids(), "{}: the keystroke", subject.what);
        assert_eq!(long.tokens, chat.ids(), "{}: the long prompt", subject.what);
    }
}

/// A safetensors file with the first pictures of a case.
fn write_pixels(path: &Path, subject: &Subject, pictures: usize) {
    let shape = [&[pictures], &subject.case.array("pixel_values").shape[1..]].concat();
    let bytes: Vec<u8> =
        subject.case.pixels()[..pictures].iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    let tensor = TensorView::new(Dtype::F32, shape, &bytes).expect("the shape is the array's");
    safetensors::serialize_to_file([("pixel_values", tensor)], None, path)
        .expect("the folder can be written");
}

#[test]
fn inspect_logits_reads_pictures_from_outside() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (input, output) = (folder.path().join("in.json"), folder.path().join("out.safetensors"));
    let mut findings = Findings::default();
    for subject in CASES.map(|case| Subject::new(case, Precision::Exact)) {
        let model = places::golden(&subject.case.name);
        let paths = [&model, &input, &output].map(|path| path.to_string_lossy().into_owned());
        let arguments =
            ["inspect", "logits", "--model", &paths[0], "--input", &paths[1], "--output", &paths[2]];
        for prompt in &subject.case.golden.prompts {
            let types = &prompt.token_type_ids;
            let mut asked = json!({"input_ids": prompt.ids, "token_type_ids": types});
            if prompt.pictures() > 0 {
                write_pixels(&folder.path().join("pixels.safetensors"), &subject, prompt.pictures());
                // Beside the input.
                asked["pixel_values"] = json!("pixels.safetensors");
            }
            if let Some(&cut) = subject.cuts(prompt).last() {
                asked["split"] = json!([cut, prompt.ids.len() - cut]);
            }
            for device in ["cpu", "reference"] {
                std::fs::write(&input, asked.to_string()).expect("the folder can be written");
                run(arguments.iter().chain(&["--device", device])).expect_code(0);
                let bytes = std::fs::read(&output).expect("it says that it wrote");
                let logits = golden::matrices(&bytes).expect("it wrote safetensors").remove("logits");
                let logits = logits.expect("the tensor is called logits");
                let distance = worst(&logits.data, &subject.case.tensor(&prompt.logits).data);
                findings.check(distance <= prompt.tolerance(), || {
                    format!("{} {} on {device}: {distance:e}", subject.what, prompt.name)
                });
            }
            let mut wrong = asked.clone();
            wrong["token_type_ids"] = json!(vec![2; types.len()]);
            std::fs::write(&input, wrong.to_string()).expect("the folder can be written");
            let refused = run(arguments).expect_refusal(4);
            assert!(refused.err.contains("token_type_ids: 2 at 0"), "{}", refused.err);
        }
    }
    findings.assert_none();
}
