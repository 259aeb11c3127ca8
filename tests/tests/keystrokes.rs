//! Cold and warm agree: whatever was typed, asked, cancelled, evicted and restarted before, an answer is the
//! answer of an engine that keeps nothing and tries nothing ahead of its turn. The same tokens, and the same bits of their
//! probabilities, since no kernel's row depends on the rows beside it.
//!
//! Each script is an editing session drawn from a seed: files that are typed in, cut and pasted from, jumped about
//! in; a chat beside it; several requests at once, of any priority, some cancelled on their way; models that come
//! and go; a cache that is too small, or is carried through a restart by a file that may have been damaged meanwhile.
//!
//! `GEMMA_LS_SCRIPTS=20000 cargo test --release -p gemma-tests --test keystrokes` runs more of them than CI does,
//! from other seeds where `GEMMA_LS_SEED` says so. A failure names its seed; with that and `GEMMA_LS_SCRIPTS=1` the one
//! script runs again, the times at which it cancels excepted.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use candle_core::quantized::GgmlDType;
use gemma_engine::{
    CacheFolder, CancelFlag, Engine, EngineOptions, FinishReason, Finished, GenerateRequest, Level,
    LoadOptions, Model, Precision, Priority, Sampling, Stop, Token, TokenStream,
};
use gemma_tests::places;
use gemma_tests::synthetic::Network;

/// The best level at which a row has the same bits in a pass of any length: matrix units take passes of more than 16
/// rows in bf16.
const LEVEL: Level = Level::Avx512;

/// Scripts where nobody asks for another number.
const SCRIPTS: u64 = 320;
/// What happens in a script, one request or several each.
const STEPS: usize = 16;
/// Tokens that texts are made of: few, so that much comes back.
const WORDS: usize = 12;
/// Most tokens of a prompt; with its answer it stays below every model's context.
const LONGEST: usize = 180;

/// A model of each kind of memory: all of the text, windows in some layers or in all, recurrent state.
struct Kind {
    name: &'static str,
    path: PathBuf,
    precision: Precision,
}

/// A golden checkpoint with other values in its configuration.
fn variant(folder: &Path, name: &str, golden: &str, change: impl Fn(&mut serde_json::Value)) -> PathBuf {
    let (from, to) = (places::golden(golden), folder.join(name));
    let config = std::fs::read(from.join("config.json")).expect("golden data is there");
    let mut config = serde_json::from_slice(&config).expect("it is JSON");
    change(&mut config);
    std::fs::create_dir(&to).expect("a folder can be made");
    std::fs::write(to.join("config.json"), config.to_string()).expect("it can be written to");
    std::fs::copy(from.join("model.safetensors"), to.join("model.safetensors")).expect("it can be copied");
    to
}

fn kinds(folder: &Path) -> Vec<Kind> {
    let golden = |name| Kind { name, path: places::golden(name), precision: Precision::Fast };
    let wide = variant(folder, "recurrent-40", "recurrentgemma", |config| {
        config["attention_window_size"] = 40.into();
    });
    let windows = variant(folder, "windows-only", "gemma3-text", |config| {
        config["layer_types"] = vec!["sliding_attention"; 7].into();
        config["sliding_window"] = 24.into();
    });
    let quantised = folder.join("quantised.gguf");
    Network::random(5).gguf().quantised(|_| GgmlDType::Q4K).write(&quantised, 3);
    let eight = folder.join("eight.gguf");
    Network::random(6).gguf().quantised(|_| GgmlDType::Q8_0).write(&eight, 3);
    vec![
        golden("gemma1-mqa"),
        golden("gemma2-gqa"),
        golden("gemma3-text"),
        golden("recurrentgemma"),
        Kind { name: "a recurrence with a wider window", path: wide, precision: Precision::Exact },
        Kind { name: "windows only", path: windows, precision: Precision::Fast },
        Kind { name: "quantised, keys in half precision", path: quantised, precision: Precision::Fast },
        Kind { name: "the vocabulary in 8 bits", path: eight, precision: Precision::Fast },
    ]
}

fn load(engine: &Engine, kind: &Kind) -> Arc<Model> {
    let options = LoadOptions { precision: kind.precision, ..LoadOptions::new(&kind.path) };
    engine.load(options, &mut |_| {}).unwrap_or_else(|e| panic!("{}: {e}", kind.name))
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n.max(1)
    }

    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn words(&mut self, n: usize) -> Vec<u32> {
        (0..n).map(|_| 20 + self.below(WORDS) as u32).collect()
    }
}

/// What the scripts went through, all together: a test that meets no eviction says nothing about them.
#[derive(Default)]
struct Tally {
    asked: AtomicU64,
    found: AtomicU64,
    evictions: AtomicU64,
    answers: AtomicU64,
    cancelled: AtomicU64,
    accepted: AtomicU64,
    whole: AtomicU64,
    restored: AtomicU64,
}

fn add(to: &AtomicU64, n: u64) {
    to.fetch_add(n, Ordering::Relaxed);
}

/// A file: its text, and where the cursor was.
struct Document {
    text: Vec<u32>,
    cursor: usize,
    places: Vec<usize>,
}

/// What one request asked for.
#[derive(Debug, Clone)]
struct Asked {
    model: usize,
    prompt: Vec<u32>,
    max_tokens: usize,
    sampling: Sampling,
    priority: Priority,
    ignore_eos: bool,
    logprobs: bool,
}

/// Tokens with the bits of their probabilities, where these were asked for, and how it ended.
type Answer = (Vec<(u32, Option<u32>)>, FinishReason);

/// A session being scripted.
struct Session<'a> {
    random: Random,
    kinds: &'a [Kind],
    /// Which kinds of models are in use.
    chosen: Vec<usize>,
    folder: Option<CacheFolder>,
    budget: u64,
    warm: Option<Engine>,
    /// One for each of the chosen.
    models: Vec<Arc<Model>>,
    cold: &'a Cold,
    documents: Vec<Document>,
    front: usize,
    /// Most tokens in front of the cursor and behind it.
    sides: (usize, usize),
    suffix_first: bool,
    chat: Vec<u32>,
    tally: &'a Tally,
}

/// An engine that keeps nothing, with all models.
struct Cold {
    engine: Engine,
    models: Vec<Arc<Model>>,
}

impl Cold {
    fn new(kinds: &[Kind]) -> Self {
        let (threads, cache_bytes, level) = (Some(1), Some(0), Some(LEVEL));
        let options = EngineOptions { threads, cache_bytes, level, ..EngineOptions::default() };
        let engine = Engine::start(options).expect("an engine starts");
        Self { models: kinds.iter().map(|kind| load(&engine, kind)).collect(), engine }
    }

    fn answer(&self, kind: usize, asked: &Asked) -> Answer {
        let request = GenerateRequest { speculate: false, ..request(&self.models[kind], asked) };
        let (answer, finished) = read(self.engine.submit(request));
        assert_eq!(finished.timings.cached_tokens, 0, "nothing is kept here");
        answer
    }
}

fn request(model: &Arc<Model>, asked: &Asked) -> GenerateRequest {
    GenerateRequest {
        sampling: asked.sampling.clone(),
        stop: Stop { ignore_eos: asked.ignore_eos, ..Stop::default() },
        priority: asked.priority,
        logprobs: asked.logprobs,
        ..GenerateRequest::new(model.clone(), asked.prompt.clone(), asked.max_tokens)
    }
}

fn read(stream: TokenStream) -> (Answer, Finished) {
    let mut tokens = Vec::new();
    let token = |token: &Token| tokens.push((token.id, token.logprob.map(f32::to_bits)));
    let finished = stream.finish_blocking(token).unwrap_or_else(|e| panic!("{e}"));
    ((tokens, finished.finish_reason), finished)
}

impl<'a> Session<'a> {
    fn new(seed: u64, kinds: &'a [Kind], cold: &'a Cold, place: &Path, tally: &'a Tally) -> Self {
        let mut random = Random::new(seed);
        // The last kind is larger, and seldom.
        let kind = |random: &mut Random| match random.once_in(10) {
            true => kinds.len() - 1,
            false => random.below(kinds.len() - 1),
        };
        let chosen = (0..1 + random.below(2)).map(|_| kind(&mut random)).collect();
        let max_bytes = random.pick(&[u64::MAX, 1 << 40, 60_000]);
        let folder = random.once_in(2).then(|| CacheFolder { path: place.join("cache"), max_bytes });
        let documents = (0..2 + random.below(2)).map(|_| {
            let len = 10 + random.below(150);
            let text = random.words(len);
            Document { cursor: random.below(text.len()), text, places: vec![0] }
        });
        let documents = documents.collect();
        let mut session = Self {
            kinds,
            chosen,
            folder,
            budget: random.pick(&[0, 9_000, 30_000, 100_000, 400_000, 1 << 40, 1 << 40]),
            warm: None,
            models: Vec::new(),
            cold,
            documents,
            front: 0,
            sides: (20 + random.below(100), random.below(60)),
            suffix_first: random.once_in(2),
            chat: vec![2],
            tally,
            random,
        };
        session.start();
        session
    }

    fn start(&mut self) {
        let (cache_bytes, cache_folder) = (Some(self.budget), self.folder.clone());
        let engine = Engine::start(EngineOptions {
            threads: Some(1),
            cache_bytes,
            cache_folder,
            level: Some(LEVEL),
            ..EngineOptions::default()
        });
        let engine = engine.expect("an engine starts");
        self.models = self.chosen.iter().map(|&kind| load(&engine, &self.kinds[kind])).collect();
        self.warm = Some(engine);
    }

    /// Ends the engine, counted, and perhaps breaks what it wrote.
    fn stop(&mut self) {
        let Some(engine) = self.warm.take() else { return };
        let statistics = engine.cache_statistics();
        add(&self.tally.asked, statistics.tokens_asked);
        add(&self.tally.found, statistics.tokens_found);
        add(&self.tally.evictions, statistics.evictions);
        if self.random.once_in(2) {
            self.models.clear();
        }
        drop(engine);
        self.models.clear();
        let Some(folder) = self.folder.as_ref().filter(|_| self.random.once_in(3)) else { return };
        for entry in folder.path.read_dir().into_iter().flatten().flatten() {
            let mut bytes = std::fs::read(entry.path()).expect("it was written");
            match self.random.below(3) {
                0 => bytes.truncate(self.random.below(bytes.len())),
                _ => {
                    let at = self.random.below(bytes.len());
                    bytes[at] ^= 1 << self.random.below(8);
                }
            }
            std::fs::write(entry.path(), bytes).expect("it can be written to");
        }
    }

    fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// Something that a person does.
    fn edit(&mut self) {
        let random = &mut self.random;
        let count = self.documents.len();
        let pasted = {
            let from = &self.documents[random.below(count)].text;
            let start = random.below(from.len());
            from[start..(start + 1 + random.below(50)).min(from.len())].to_vec()
        };
        let document = &mut self.documents[self.front];
        let (text, cursor) = (&mut document.text, &mut document.cursor);
        match random.below(12) {
            0 => {
                let gone = (1 + random.below(5)).min(*cursor);
                text.drain(*cursor - gone..*cursor);
                *cursor -= gone;
            }
            1 => {
                text.splice(*cursor..*cursor, pasted.iter().copied());
                *cursor += pasted.len();
            }
            2 => {
                document.places.push(*cursor);
                *cursor = random.below(text.len() + 1);
            }
            // Back to where somebody was before.
            3 => *cursor = random.pick(&document.places).min(text.len()),
            4 => self.front = random.below(count),
            5 => {
                let gone = *cursor..(*cursor + random.below(20)).min(text.len());
                text.drain(gone);
            }
            _ => {
                let n = 1 + random.below(3);
                let typed = match random.once_in(2) {
                    true => random.words(n),
                    // What was written before, word by word.
                    false => pasted[..pasted.len().min(n)].to_vec(),
                };
                text.splice(*cursor..*cursor, typed.iter().copied());
                *cursor += typed.len();
            }
        }
        for document in &mut self.documents {
            document.cursor = document.cursor.min(document.text.len());
            if document.text.is_empty() {
                document.text.push(20);
            }
        }
    }

    /// The prompt at the cursor, and lengths of it at which the next one may part.
    fn prompt(&self) -> (Vec<u32>, Vec<usize>) {
        let Document { text, cursor, .. } = &self.documents[self.front];
        let before = &text[cursor.saturating_sub(self.sides.0)..*cursor];
        let behind = &text[*cursor..(cursor + self.sides.1).min(text.len())];
        let parts: [&[u32]; 4] = match self.suffix_first {
            true => [&[2, 12], behind, &[13], before],
            false => [&[2, 13], before, &[12], behind],
        };
        let mut prompt = parts.concat();
        prompt.truncate(LONGEST);
        let cuts = vec![2 + parts[1].len(), prompt.len()];
        (prompt, cuts)
    }

    fn asked(&mut self) -> (Asked, Vec<usize>) {
        let model = self.random.below(self.models.len());
        let chat = self.random.once_in(5);
        let (prompt, cuts) = if chat {
            if self.chat.len() > 100 {
                self.chat.truncate(1);
            }
            let n = 1 + self.random.below(25);
            let question = self.random.words(n);
            self.chat.extend(question);
            (self.chat.clone(), Vec::new())
        } else {
            self.prompt()
        };
        let sampling = match self.random.once_in(5) {
            true => Sampling { temperature: 1.2, seed: self.random.0, ..Sampling::default() },
            false => Sampling::default(),
        };
        let priorities = [Priority::Completion, Priority::Chat, Priority::Background];
        let asked = Asked {
            model,
            prompt,
            max_tokens: 1 + self.random.below(9),
            sampling,
            priority: self.random.pick(&priorities),
            ignore_eos: self.random.once_in(2),
            logprobs: self.random.once_in(2),
        };
        (asked, cuts)
    }

    /// Asks once or several times at once, and holds every answer against a cold one.
    fn step(&mut self) {
        let (mut running, mut impatient) = (Vec::new(), Vec::new());
        for _ in 0..1 + self.random.below(3) {
            let (asked, cuts) = self.asked();
            let cancel = CancelFlag::new();
            let mut request = GenerateRequest {
                cuts,
                cancel: cancel.clone(),
                speculate: !self.random.once_in(4),
                ..request(&self.models[asked.model], &asked)
            };
            let draft = &self.documents[self.random.below(self.documents.len())].text;
            request.drafts = vec![Arc::from(&draft[..])];
            match self.random.below(8) {
                // In the middle of the answer.
                0 => {
                    let mut left = self.random.below(4);
                    request.stop.enough = Some(Box::new(move |_| {
                        match left {
                            0 => cancel.cancel(),
                            _ => left -= 1,
                        }
                        false
                    }));
                }
                // In the middle of anything.
                1 => impatient.push((cancel, Duration::from_micros(self.random.below(1500) as u64))),
                _ => {}
            }
            let engine = self.warm.as_ref().expect("it was started");
            running.push((asked, engine.submit(request)));
            if self.random.once_in(2) {
                self.edit();
            }
        }
        let begun = Instant::now();
        impatient.sort_by_key(|(_, after)| *after);
        for (cancel, after) in impatient {
            while begun.elapsed() < after {
                std::hint::spin_loop();
            }
            cancel.cancel();
        }
        for (asked, stream) in running {
            let (warm, finished) = read(stream);
            self.compare(&asked, warm, &finished);
        }
        let statistics = self.warm.as_ref().expect("it was started").cache_statistics();
        let (bytes, budget) = (statistics.bytes, self.budget);
        assert!(bytes <= budget, "{bytes} bytes are kept, {budget} may be");
    }

    fn compare(&mut self, asked: &Asked, (warm, end): Answer, finished: &Finished) {
        let kind = self.chosen[asked.model];
        let (cold, cold_end) = self.cold.answer(kind, asked);
        let cut = end == FinishReason::Cancelled;
        let same = if cut { cold.starts_with(&warm) } else { warm == cold && end == cold_end };
        let (name, timings) = (self.kinds[kind].name, finished.timings);
        assert!(same, "{name}: {asked:?}\nwarm {warm:?} {end:?} {timings:?}\ncold {cold:?} {cold_end:?}");
        add(&self.tally.answers, 1);
        add(&self.tally.cancelled, u64::from(cut));
        add(&self.tally.accepted, timings.accepted_tokens as u64);
        add(&self.tally.whole, u64::from(timings.cached_tokens == asked.prompt.len()));
        // One model's vocabulary is larger than the others'.
        let known = |&(id, _): &(u32, Option<u32>)| if id < 256 { id } else { 20 + id % WORDS as u32 };
        if asked.prompt == self.chat {
            self.chat.extend(warm.iter().map(known));
        } else if self.random.once_in(4) && !cut {
            // Taken, or a part of it.
            let document = &mut self.documents[self.front];
            let taken = warm[..self.random.below(warm.len() + 1)].iter().map(known);
            let taken: Vec<u32> = taken.filter(|&id| id > 19).collect();
            document.text.splice(document.cursor..document.cursor, taken.iter().copied());
            document.cursor += taken.len();
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            self.edit();
            self.step();
            match self.random.below(40) {
                0 | 1 => {
                    self.restart();
                    self.step();
                    let statistics = self.warm.as_ref().expect("it was started").cache_statistics();
                    let own = statistics.requests > 1;
                    add(&self.tally.restored, if own { 0 } else { statistics.tokens_found });
                }
                // Another model, or the same one anew.
                2 => {
                    let at = self.random.below(self.models.len());
                    self.chosen[at] = self.random.below(self.kinds.len() - 1);
                    let engine = self.warm.as_ref().expect("it was started");
                    self.models[at] = load(engine, &self.kinds[self.chosen[at]]);
                }
                _ => {}
            }
        }
        self.stop();
    }
}

static KINDS: LazyLock<(tempfile::TempDir, Vec<Kind>)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let kinds = kinds(folder.path());
    (folder, kinds)
});

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

#[test]
fn every_answer_of_a_session_is_that_of_a_cold_start() {
    let scripts = number("GEMMA_LS_SCRIPTS").unwrap_or(SCRIPTS);
    let first = number("GEMMA_LS_SEED").unwrap_or(1);
    let (next, tally, failed) = (AtomicU64::new(0), Tally::default(), Mutex::new(None));
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let kinds = &KINDS.1;
                let cold = Cold::new(kinds);
                while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&at| at < scripts) {
                    let seed = first + seed;
                    let script = || {
                        let place = tempfile::tempdir().expect("a temporary folder can be made");
                        Session::new(seed, kinds, &cold, place.path(), &tally).run();
                    };
                    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(script)).is_err() {
                        next.store(scripts, Ordering::Relaxed);
                        *failed.lock().expect("nobody panics with it") = Some(seed);
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    if let Some(seed) = *failed.lock().expect("nobody panics with it") {
        panic!("GEMMA_LS_SEED={seed} GEMMA_LS_SCRIPTS=1 runs the script that failed");
    }
    let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
    let (asked, found) = (count(&tally.asked), count(&tally.found));
    println!(
        "{} scripts: {} answers, {} of them cancelled, {found} of {asked} tokens found, {} prompts whole, {} \
         evictions, {} drafted tokens taken, {} tokens found first after a restart",
        done.load(Ordering::Relaxed),
        count(&tally.answers),
        count(&tally.cancelled),
        count(&tally.whole),
        count(&tally.evictions),
        count(&tally.accepted),
        count(&tally.restored),
    );
    if scripts >= SCRIPTS {
        assert!(found * 5 > asked, "much is found, though many caches are too small");
        for n in [&tally.cancelled, &tally.whole, &tally.evictions, &tally.accepted, &tally.restored] {
            assert!(count(n) > 100, "the scripts meet all of it");
        }
    }
}
