//! Explaining pictures: screenshots above all, with the text and the errors in them.
//!
//! Two kinds of models see. A PaliGemma answers short commands, so it is asked for several readings: what the
//! whole shows, the text of each tile, an answer to the question; a chat model, where there is one, writes the
//! explanation from them. A Gemma 3 with pictures is simply asked.
//!
//! Nothing is printed here: whoever asks is told of each step and each piece of text as it comes.

pub mod draw;
mod loops;
pub mod marks;
mod merge;
mod prompt;
mod task;
mod tiles;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use gemma_engine::config::{Sight, VisionSpec};
use gemma_engine::{
    CancelFlag, Engine, Error, ErrorKind, FinishReason, Finished, GenerateRequest, Model, Picture, Resample,
    Sampling, Stop, Timings, TokenStream,
};

use crate::chat;
use marks::Found;
use prompt::Marks;
pub use task::Task;
use tiles::{Tile, Tiling};
use write::Readings;

/// Most tiles that a picture is read in where nobody says otherwise.
pub const MOST_TILES: usize = 16;
/// Longest reading of a picture or a tile, in tokens.
const READING_TOKENS: usize = 256;

/// What is asked where nobody asks anything.
pub const QUESTION: &str = "What does this picture show? If there is an error in it, say which and what it means. What should be done next?";

/// How much is read and written.
#[derive(Debug, Clone)]
pub struct Options {
    /// Most tiles that a picture is read in; 1: only as a whole.
    pub tiles: usize,
    /// Longest explanation, in tokens.
    pub max_tokens: usize,
    /// How the words of an explanation are picked. Readings always take the most likely.
    pub sampling: Sampling,
}

impl Default for Options {
    fn default() -> Self {
        Self { tiles: MOST_TILES, max_tokens: chat::MAX_TOKENS, sampling: chat::sampling() }
    }
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The picture is looked at as a whole.
    Overview,
    /// The question is put to the picture.
    Question,
    /// The text of a tile is read: `number` of `of`, from 1.
    Tile {
        /// Which.
        number: usize,
        /// Of how many.
        of: usize,
    },
    /// The explanation is written.
    Explanation,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overview => f.write_str("Looking at the whole picture"),
            Self::Question => f.write_str("Looking for an answer"),
            Self::Tile { of: 1, .. } => f.write_str("Reading the text"),
            Self::Tile { number, of } => write!(f, "Reading the text: tile {number} of {of}"),
            Self::Explanation => f.write_str("Thinking about it"),
        }
    }
}

/// What happens while a picture is explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'t> {
    /// A step begins.
    Step(Step),
    /// A piece of the answer; all of them together are its text and perhaps blank lines behind it.
    Text(&'t str),
}

/// Takes [`Progress`].
pub type OnProgress<'a> = &'a mut dyn FnMut(Progress<'_>);

/// An answer about a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What to show. Boxes are spelt as the model did.
    pub text: String,
    /// The boxes in it, in pixels of the whole picture.
    pub found: Vec<Found>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// All steps together; `ttft_ms` is until the first text of the answer.
    pub timings: Timings,
}

/// A picture that is looked at: what was read stays for the next question.
pub struct Look {
    picture: Arc<Picture>,
    /// In reading order; the parts that are read or shown one by one.
    tiles: Vec<Arc<Picture>>,
    columns: usize,
    readings: Readings,
}

impl Look {
    /// The picture.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    /// In how many tiles it is read.
    pub fn tiles(&self) -> usize {
        self.tiles.len()
    }

    /// What was read so far.
    pub fn readings(&self) -> &Readings {
        &self.readings
    }
}

/// Models that explain pictures.
pub struct Explainer {
    engine: Engine,
    reader: Arc<Model>,
    vision: VisionSpec,
    writer: Option<Arc<Model>>,
    options: Options,
    cancel: CancelFlag,
}

impl Explainer {
    /// `reader` looks at pictures; `cancel` stops everything.
    ///
    /// Fails with [`Unsupported`](ErrorKind::Unsupported) where the reader does not see.
    pub fn new(
        engine: Engine,
        reader: Arc<Model>,
        options: Options,
        cancel: CancelFlag,
    ) -> Result<Self, Error> {
        let Some(vision) = reader.config().vision.clone() else {
            return Err(crate::models::blind(reader.name()));
        };
        Ok(Self { engine, reader, vision, writer: None, options, cancel })
    }

    /// A model that turns what was read into an explanation; a reader that converses writes it itself.
    pub fn with_writer(self, writer: Arc<Model>) -> Self {
        Self { writer: Some(writer), ..self }
    }

    /// Whether the reader converses, so that a writer is of no use to it.
    pub fn converses(&self) -> bool {
        self.vision.sight == Sight::Picture
    }

    /// Begins with a picture: cuts it into what is read one by one.
    pub fn look(&self, picture: Arc<Picture>) -> Look {
        let (width, height) = (picture.width(), picture.height());
        let tiling = match self.vision.sight {
            Sight::Prefix => Tiling::new(width, height, self.vision.image_size, self.options.tiles),
            Sight::Picture => {
                let tiles = if self.options.tiles > 1 { tiles::crops(width, height) } else { Vec::new() };
                Tiling { size: (width, height), columns: tiles.len().max(1), tiles }
            }
        };
        let scaled = match tiling.size == (width, height) {
            true => picture.clone(),
            false => Arc::new(picture.resized(tiling.size.0, tiling.size.1, Resample::Bicubic)),
        };
        let cut = |tile: &Tile| Arc::new(scaled.crop(tile.x, tile.y, tile.width, tile.height));
        let tiles = match tiling.tiles[..] {
            // The one tile is the whole: the very same picture is encoded once.
            [_] => vec![picture.clone()],
            _ => tiling.tiles.iter().map(cut).collect(),
        };
        Look { picture, tiles, columns: tiling.columns, readings: Readings::default() }
    }

    /// Explains a picture, or answers a question about it.
    pub fn explain(
        &self,
        look: &mut Look,
        question: Option<&str>,
        progress: OnProgress<'_>,
    ) -> Result<Answer, Error> {
        let mut total = Total::new();
        if self.converses() {
            return self.converse(look, question.unwrap_or(QUESTION), total, progress);
        }
        let first = look.readings.caption.is_none();
        // Without a writer the readings are the answer: they are shown as they come.
        let shown = self.writer.is_none();
        if first {
            progress(Progress::Step(Step::Overview));
            let caption = self.read(&look.picture, &Task::Caption, shown, &mut total, progress)?;
            look.readings.caption = Some(caption);
        }
        let answer = match question.filter(|_| !total.is_over()) {
            None => None,
            Some(question) => {
                separate(shown, &mut total, progress);
                progress(Progress::Step(Step::Question));
                let task = Task::Answer(question.to_owned());
                Some(self.read(&look.picture, &task, shown, &mut total, progress)?)
            }
        };
        if look.readings.text.is_none() && !total.is_over() {
            separate(shown, &mut total, progress);
            let text = self.read_text(look, &mut total, progress)?;
            if shown {
                total.show(&text, progress);
            }
            if !total.is_over() {
                look.readings.text = Some(text);
            }
        }
        look.readings.answer = answer;
        match &self.writer {
            Some(writer) if !total.is_over() => {
                progress(Progress::Step(Step::Explanation));
                let stream = write::explanation(
                    &self.engine,
                    writer,
                    &look.readings,
                    question,
                    &self.options,
                    self.cancel.clone(),
                )?;
                total.follow(stream, true, progress)?;
                Ok(total.answer(Vec::new()))
            }
            _ => Ok(total.answer(Vec::new())),
        }
    }

    /// Does one thing with a picture. A reader that converses is asked for it in words; boxes it cannot give.
    pub fn task(&self, look: &Look, task: &Task, progress: OnProgress<'_>) -> Result<Answer, Error> {
        let mut total = Total::new();
        if self.converses() {
            return self.converse(look, &self.in_words(task)?, total, progress);
        }
        if *task == Task::Ocr {
            let text = self.read_text(look, &mut total, progress)?;
            total.show(&text, progress);
            return Ok(total.answer(Vec::new()));
        }
        let step = if matches!(task, Task::Answer(_)) { Step::Question } else { Step::Overview };
        progress(Progress::Step(step));
        let marked = task.gives_boxes();
        let text = self.read(&look.picture, task, !marked, &mut total, progress)?;
        if !marked {
            return Ok(total.answer(Vec::new()));
        }
        total.text.clone_from(&text);
        Ok(total.answer(marks::parse(&text, look.picture.width(), look.picture.height())))
    }

    /// A command in the words of a conversation.
    fn in_words(&self, task: &Task) -> Result<String, Error> {
        match task {
            Task::Caption => Ok("Describe this picture in one sentence.".to_owned()),
            Task::Ocr => {
                Ok("Write down all text in this picture, line by line, and nothing else.".to_owned())
            }
            Task::Answer(question) => Ok(question.clone()),
            Task::Detect(_) | Task::Segment(_) => Err(Error::new(
                ErrorKind::Unsupported,
                self.reader.name(),
                format_args!("it answers in words and knows no {task}"),
            )
            .remedy("Name a PaliGemma of the mix kind with --model.")),
        }
    }

    /// The text of the whole picture, tile by tile.
    fn read_text(&self, look: &Look, total: &mut Total, progress: OnProgress<'_>) -> Result<String, Error> {
        let mut texts = Vec::with_capacity(look.tiles.len());
        for (n, tile) in look.tiles.iter().enumerate() {
            progress(Progress::Step(Step::Tile { number: n + 1, of: look.tiles.len() }));
            texts.push(self.read(tile, &Task::Ocr, false, total, progress)?);
            if total.is_over() {
                break;
            }
        }
        Ok(merge::merge(&texts, look.columns))
    }

    /// Gives a command to a reader that knows commands. Marks of boxes are spelt out.
    fn read(
        &self,
        picture: &Arc<Picture>,
        task: &Task,
        shown: bool,
        total: &mut Total,
        progress: OnProgress<'_>,
    ) -> Result<String, Error> {
        let tokenizer = self.reader.tokenizer();
        let prompt = prompt::command(task, &self.vision, self.reader.config().bos, tokenizer)?;
        let max_tokens = READING_TOKENS.min(self.options.max_tokens);
        let stop = Stop { enough: Some(Box::new(|text| loops::start(text).is_some())), ..Stop::default() };
        let stream = self.submit(prompt, vec![picture.clone()], max_tokens, Sampling::default(), stop);
        let finished = total.follow(stream, shown, progress)?;
        if task.gives_boxes() {
            // A checkpoint may take its marks for control tokens, which no text shows.
            return Ok(tokenizer.decode(&finished.tokens, false).trim().to_owned());
        }
        let end = loops::start(&finished.text).unwrap_or(finished.text.len());
        Ok(finished.text[..end].trim().to_owned())
    }

    /// Asks a reader that converses: one turn about the picture and its parts.
    fn converse(
        &self,
        look: &Look,
        question: &str,
        mut total: Total,
        progress: OnProgress<'_>,
    ) -> Result<Answer, Error> {
        progress(Progress::Step(Step::Explanation));
        let tokenizer = self.reader.tokenizer();
        let marks = Marks::of(tokenizer, self.reader.name())?;
        let crops = if look.tiles.len() > 1 { look.tiles.len() } else { 0 };
        let bos = self.reader.config().bos;
        let prompt = prompt::turn(question, crops, &self.vision, marks, bos, tokenizer)?;
        let pictures = std::iter::once(&look.picture).chain(&look.tiles[..crops]).cloned().collect();
        let stop = Stop { tokens: vec![marks.turn.1], ..Stop::default() };
        let options = &self.options;
        let stream = self.submit(prompt, pictures, options.max_tokens, options.sampling.clone(), stop);
        total.follow(stream, true, progress)?;
        Ok(total.answer(Vec::new()))
    }

    fn submit(
        &self,
        prompt: Vec<u32>,
        pictures: Vec<Arc<Picture>>,
        max_tokens: usize,
        sampling: Sampling,
        stop: Stop,
    ) -> TokenStream {
        self.engine.submit(GenerateRequest {
            pictures,
            sampling,
            stop,
            cancel: self.cancel.clone(),
            base_alone: self.reader.adapter_infills(),
            ..GenerateRequest::new(self.reader.clone(), prompt, max_tokens)
        })
    }
}

/// A blank line between two readings that are shown.
fn separate(shown: bool, total: &mut Total, progress: OnProgress<'_>) {
    if shown && !total.text.is_empty() {
        total.show("\n\n", progress);
    }
}

/// An answer in the making: the text that was shown, and the steps so far.
struct Total {
    begun: Instant,
    text: String,
    timings: Timings,
    finish_reason: FinishReason,
}

impl Total {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            text: String::new(),
            timings: Timings::default(),
            finish_reason: FinishReason::Stop,
        }
    }

    /// Whether somebody stopped it.
    fn is_over(&self) -> bool {
        self.finish_reason == FinishReason::Cancelled
    }

    fn show(&mut self, text: &str, progress: OnProgress<'_>) {
        if text.is_empty() {
            return;
        }
        if self.text.is_empty() {
            self.timings.ttft_ms = self.begun.elapsed().as_secs_f64() * 1e3;
        }
        self.text.push_str(text);
        progress(Progress::Text(text));
    }

    /// Waits for a generation, showing its text where that is part of the answer.
    fn follow(
        &mut self,
        stream: TokenStream,
        shown: bool,
        progress: OnProgress<'_>,
    ) -> Result<Finished, Error> {
        let finished = stream.texts_blocking(|text| {
            if shown {
                self.show(text, progress);
            }
        })?;
        let (sum, part) = (&mut self.timings, &finished.timings);
        sum.queue_ms += part.queue_ms;
        sum.image_tokens += part.image_tokens;
        sum.image_tokens_cached += part.image_tokens_cached;
        sum.image_ms += part.image_ms;
        sum.prefill_tokens += part.prefill_tokens;
        sum.cached_tokens += part.cached_tokens;
        sum.prefill_ms += part.prefill_ms;
        sum.decode_tokens += part.decode_tokens;
        sum.decode_ms += part.decode_ms;
        self.finish_reason = finished.finish_reason;
        Ok(finished)
    }

    fn answer(self, found: Vec<Found>) -> Answer {
        Answer {
            text: self.text.trim_end().to_owned(),
            found,
            finish_reason: self.finish_reason,
            timings: self.timings,
        }
    }
}
