//! `gemma-ls inspect`: every logit of a sequence, so that anyone can hold a checkpoint against another
//! implementation; the schema of the settings, so that a client can be made from it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use gemma_engine::config::{ModelConfig, Sight};
use gemma_engine::engine::Logits;
use gemma_engine::{LogitsRequest, Precision};
use safetensors::{Dtype, SafeTensors, View};
use serde::Deserialize;
use serde_json::json;

use super::failure::{Exit, Failure, Outcome};
use super::session::Session;
use super::{Context, ModelArgs, output};
use crate::settings::{self, Settings};

const EXAMPLES: &str = "\
The input is a JSON object:
  {\"input_ids\": [2, 1841, 563]}                     the tokens, <bos> included: nothing is added
  {\"input_ids\": [2, 1841, 563], \"split\": [2, 1]}    fed in pieces of these lengths through the cache
and for a model that reads pictures also:
  \"pixel_values\": \"FILE.safetensors\"    its tensor `pixel_values`, f32 [pictures, 3, height, width] in -1..1, one
                                         picture for each run of image tokens
  \"token_type_ids\": [0, 0, 1]           PaliGemma: 0 for the prompt, which sees itself both ways, then 1 (left
                                         out: all is prompt). Gemma 3: 1 for image tokens, 0 for text
A piece may not end where tokens see each other both ways: inside a picture, or inside a PaliGemma's prompt.

The output holds one tensor, `logits`, f32 [tokens, vocabulary], after the final soft cap.

Examples:
  gemma-ls inspect logits --model ./gemma-3-270m --input ids.json --output logits.safetensors
  gemma-ls inspect logits --model m.gguf --input ids.json --output l.safetensors --device reference";

/// Look inside: a model's logits, the settings' schema
#[derive(Subcommand)]
pub enum InspectCommand {
    Logits(LogitsArgs),
    Settings(SettingsArgs),
}

/// Write the logits of every position of a sequence
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct LogitsArgs {
    /// A model's folder, .gguf file or name
    #[arg(long, short, value_name = "MODEL")]
    model: String,
    /// The tokens, as JSON
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where to write the logits, as safetensors
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,
    /// A LoRA adapter beside it: PEFT's folder, llama.cpp's .gguf of one, or `built-in`
    #[arg(long, value_name = "PATH")]
    adapter: Option<String>,
    /// How to compute: f32 activations, or as completions do
    #[arg(long, value_enum, default_value_t = Numbers::Exact)]
    precision: Numbers,
}

const SETTINGS_EXAMPLES: &str = "\
What is printed is one JSON object, a JSON schema (draft 2020-12) of the object that editors send as
initializationOptions or configuration and that gemma-ls/config.json holds: each key with its type, its
default and its description.

Examples:
  gemma-ls inspect settings";

/// Print the JSON schema of the settings
#[derive(Args)]
#[command(after_long_help = SETTINGS_EXAMPLES)]
pub struct SettingsArgs {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Device {
    /// The processor, with all it can
    Cpu,
    /// A graphics card
    Cuda,
    /// The processor, in plain scalar code: slow, what everything else is held against
    Reference,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Numbers {
    /// f32 activations throughout
    Exact,
    /// 8-bit activations against quantised weights
    Fast,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    input_ids: Vec<u32>,
    token_type_ids: Option<Vec<u32>>,
    pixel_values: Option<PathBuf>,
    split: Option<Vec<usize>>,
}

/// Runs `gemma-ls inspect`.
pub fn run(context: &Context, command: &InspectCommand) -> Outcome<Exit> {
    match command {
        InspectCommand::Logits(args) => logits(context, args),
        InspectCommand::Settings(_) => output::print_json(&Settings::json_schema()),
    }?;
    Ok(Exit::Ok)
}

fn logits(context: &Context, args: &LogitsArgs) -> Outcome {
    let precision = precision(args.device, args.precision);
    let input = read_input(&args.input)?;
    let model = ModelArgs { model: Some(args.model.clone()), adapter: args.adapter.clone(), no_pull: true };
    let device = match args.device {
        Device::Cuda => settings::Device::Cuda,
        Device::Cpu | Device::Reference => settings::Device::Cpu,
    };
    let session = Session::open_on(context, &model, precision, device)?;
    let pictures = match &input.pixel_values {
        Some(path) => read_pictures(&beside(&args.input, path))?,
        None => Vec::new(),
    };
    let types = input.token_type_ids.as_deref();
    let prefix = types.map(|types| prefix(session.model.config(), &input.input_ids, types)).transpose();
    let prefix = prefix.map_err(|what| bad_input(&args.input, what))?.flatten();
    let request =
        LogitsRequest { ids: input.input_ids, split: input.split, pictures, prefix, base_alone: false };
    let logits = session.engine.logits(&session.model, request)?;
    write(&args.output, &logits)?;
    if !context.global.quiet {
        let summary = json!({ "tokens": logits.rows, "vocab": logits.vocab });
        output::say(format_args!("{}: logits {summary}", args.output.display()));
    }
    Ok(())
}

fn precision(device: Device, numbers: Numbers) -> Precision {
    match (device, numbers) {
        (Device::Reference, _) => Precision::Reference,
        (Device::Cpu | Device::Cuda, Numbers::Exact) => Precision::Exact,
        (Device::Cpu | Device::Cuda, Numbers::Fast) => Precision::Fast,
    }
}

fn read_input(path: &Path) -> Outcome<Input> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::file(path, &e))?;
    parse_input(&text).map_err(|what| bad_input(path, what))
}

fn bad_input(path: &Path, what: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::BadFile, format!("{}: {what}", path.display()))
}

fn parse_input(text: &str) -> Result<Input, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// A file that the input names: from here, or from where the input is.
fn beside(input: &Path, path: &Path) -> PathBuf {
    match input.parent() {
        Some(folder) if !path.is_file() => folder.join(path),
        _ => path.to_owned(),
    }
}

/// The pictures of a file's tensor `pixel_values`, each `[3, height, width]`.
fn read_pictures(path: &Path) -> Outcome<Vec<Vec<f32>>> {
    let bytes = std::fs::read(path).map_err(|e| Failure::file(path, &e))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| bad_input(path, e))?;
    let tensor = file.tensor("pixel_values").map_err(|e| bad_input(path, e))?;
    match (tensor.dtype(), tensor.shape()) {
        (Dtype::F32, &[_, 3, height, width]) if height * width > 0 => {
            let (words, _) = tensor.data().as_chunks::<4>();
            let pictures = words.chunks_exact(3 * height * width);
            Ok(pictures.map(|picture| picture.iter().map(|w| f32::from_le_bytes(*w)).collect()).collect())
        }
        (dtype, shape) => {
            let what =
                format!("pixel_values is {dtype:?} {shape:?}; expected F32 [pictures, 3, height, width]");
            Err(bad_input(path, what))
        }
    }
}

/// How many of the tokens are the prompt by their types, where the model makes a difference.
fn prefix(config: &ModelConfig, ids: &[u32], types: &[u32]) -> Result<Option<usize>, String> {
    if types.len() != ids.len() {
        return Err(format!("token_type_ids: {} types for {} tokens", types.len(), ids.len()));
    }
    let wrong = |at: usize, why: &str| Err(format!("token_type_ids: {} at {at}: {why}", types[at]));
    let Some(vision) = &config.vision else {
        // Types that are all 0 say that there is no picture, as some tools write for every model.
        return match types.iter().position(|&kind| kind != 0) {
            Some(at) => wrong(at, "this model reads no pictures"),
            None => Ok(None),
        };
    };
    match vision.sight {
        Sight::Prefix => {
            let end = types.iter().position(|&kind| kind != 0).unwrap_or(types.len());
            match types[end..].iter().position(|&kind| kind != 1) {
                Some(at) => wrong(end + at, "behind the prompt's 0 only 1 can stand"),
                None => Ok(Some(end)),
            }
        }
        Sight::Picture => {
            let expected = |at: usize| u32::from(ids[at] == vision.image_token);
            match (0..ids.len()).find(|&at| types[at] != expected(at)) {
                Some(at) => wrong(at, "image tokens are 1 and all others 0"),
                None => Ok(None),
            }
        }
    }
}

/// The logits as the one tensor of a file.
struct Tensor<'a> {
    shape: [usize; 2],
    data: &'a [f32],
}

impl View for Tensor<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.data.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>().into()
    }
    fn data_len(&self) -> usize {
        size_of_val(self.data)
    }
}

fn write(path: &Path, logits: &Logits) -> Outcome {
    let tensor = Tensor { shape: [logits.rows, logits.vocab], data: &logits.data };
    safetensors::serialize_to_file([("logits", tensor)], None, path).map_err(|error| {
        let what = match &error {
            safetensors::SafeTensorError::IoError(error) => super::failure::plain(error),
            other => other.to_string(),
        };
        Failure::new(Exit::Failed, format!("{}: {what}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_read_and_what_is_wrong_is_named() {
        let sound = parse_input(r#"{"input_ids": [2, 5, 6], "split": [1, 2], "token_type_ids": [0, 0, 0]}"#)
            .expect("sound");
        assert_eq!((sound.input_ids, sound.split), (vec![2, 5, 6], Some(vec![1, 2])));
        for (text, said) in [
            ("{}", "input_ids"),
            (r#"{"input_ids": [-1]}"#, "-1"),
            (r#"{"input_ids": [2], "splits": [1]}"#, "splits"),
            (r#"{"input_ids": [2], "pixel_values": [0.5]}"#, "invalid type"),
            (r#"{"input_ids": [2], "token_type_ids": 1}"#, "invalid type"),
            ("[2, 3]", "invalid type"),
            ("", "EOF"),
        ] {
            let error = parse_input(text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn the_device_and_the_precision_choose_the_numbers() {
        assert_eq!(precision(Device::Cpu, Numbers::Exact), Precision::Exact);
        assert_eq!(precision(Device::Cuda, Numbers::Fast), Precision::Fast);
        assert_eq!(precision(Device::Reference, Numbers::Fast), Precision::Reference);
    }

    #[test]
    fn what_is_written_is_a_tensor_of_the_right_shape() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("l.safetensors");
        let logits = Logits { rows: 2, vocab: 3, data: vec![0.0, 1.5, -2.0, f32::MIN_POSITIVE, 4.0, 5.0] };
        write(&path, &logits).expect("written");
        let bytes = std::fs::read(&path).expect("read");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let tensor = file.tensor("logits").expect("logits");
        assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, &[2, 3][..]));
        let (words, rest) = tensor.data().as_chunks::<4>();
        assert!(rest.is_empty());
        assert_eq!(words.iter().map(|w| f32::from_le_bytes(*w)).collect::<Vec<_>>(), logits.data);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let logits = Logits { rows: 1, vocab: 1, data: vec![0.0] };
        let failure = write(Path::new("/no/such/folder/l.safetensors"), &logits).expect_err("no folder");
        assert!(failure.to_string().starts_with("/no/such/folder/l.safetensors: "), "{failure}");
    }
}
