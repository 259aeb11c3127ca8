//! A writer of small GGUF files for tests.

use std::io::Write;

use gemma_kernels::Format;

use super::gguf_writer::{Header, number};

/// A GGUF file in the making. Setting a key again replaces its value.
pub(crate) struct Writer {
    pub(crate) version: u32,
    header: Header,
    tensors: Vec<Tensor>,
}

struct Tensor {
    name: String,
    shape: Vec<usize>,
    number: u32,
    bytes: Vec<u8>,
}

impl Writer {
    fn new() -> Self {
        Self { version: 3, header: Header::default(), tensors: Vec::new() }
    }

    pub(crate) fn u32(&mut self, key: &str, value: u32) {
        self.header.u32(key, value);
    }

    pub(crate) fn f32(&mut self, key: &str, value: f32) {
        self.header.f32(key, value);
    }

    pub(crate) fn string(&mut self, key: &str, value: &str) {
        self.header.string(key, value);
    }

    /// Pieces of a vocabulary: spelling, score, llama.cpp's type.
    pub(crate) fn vocabulary(&mut self, pieces: &[(&str, f32, i32)]) {
        self.string("tokenizer.ggml.model", "llama");
        self.header.strings("tokenizer.ggml.tokens", pieces.iter().map(|p| p.0));
        self.header.f32s("tokenizer.ggml.scores", pieces.iter().map(|p| p.1));
        self.header.i32s("tokenizer.ggml.token_type", pieces.iter().map(|p| p.2));
    }

    /// A tensor of arbitrary bytes; `dims` in ggml's order.
    fn tensor(&mut self, name: &str, dims: &[usize], format: Format) {
        let len = format.row_bytes(dims[0]).unwrap() * dims[1..].iter().product::<usize>();
        let seed = self.tensors.len();
        let bytes = (0..len).map(|i| (i * 31 + seed * 7) as u8).collect();
        let shape = dims.iter().rev().copied().collect();
        self.tensors.push(Tensor { name: name.to_owned(), shape, number: number(format), bytes });
    }

    /// Declares another ggml type for a tensor.
    pub(crate) fn retype(&mut self, name: &str, number: u32) {
        for tensor in self.tensors.iter_mut().filter(|t| t.name == name) {
            tensor.number = number;
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.tensors.retain(|t| t.name != name);
    }

    pub(crate) fn tensor_bytes(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.tensors.iter().map(|t| (t.name.as_str(), t.bytes.as_slice()))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut header = self.header.clone();
        for tensor in &self.tensors {
            header.tensor(&tensor.name, &tensor.shape, tensor.number, tensor.bytes.len() as u64);
        }
        let places = header.places(self.version);
        let mut out = places.head;
        for (tensor, start) in self.tensors.iter().zip(places.starts) {
            out.resize(start as usize, 0);
            out.extend(&tensor.bytes);
        }
        out
    }

    pub(crate) fn temp_file(&self) -> tempfile::NamedTempFile {
        let mut file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
        file.write_all(&self.bytes()).unwrap();
        file
    }
}

/// A network of six layers, matrices in `format`.
pub(crate) fn tiny(architecture: &str, format: Format) -> Writer {
    // The smallest width that whole blocks of the format fill.
    let hidden = format.block_len().max(8);
    let (layers, head_dim, ffn) = (6, hidden / 2, hidden);
    let mut writer = Writer::new();
    writer.string("general.architecture", architecture);
    for (key, value) in [
        ("block_count", layers),
        ("context_length", 64),
        ("embedding_length", hidden),
        ("feed_forward_length", ffn),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
        ("attention.key_length", head_dim),
        ("attention.value_length", head_dim),
        ("attention.sliding_window", 16),
    ] {
        writer.u32(&format!("{architecture}.{key}"), value as u32);
    }
    writer.f32(&format!("{architecture}.attention.layer_norm_rms_epsilon"), 1e-6);
    writer.u32("tokenizer.ggml.eos_token_id", 1);
    writer.vocabulary(&[
        ("<pad>", 0.0, 3),
        ("<eos>", 0.0, 3),
        ("<bos>", 0.0, 3),
        ("<unk>", 0.0, 2),
        ("<0x0A>", 0.0, 6),
        ("<end_of_turn>", 0.0, 4),
        ("\n\n", 0.0, 4),
        ("  ", 0.0, 4),
        ("a", -1.0, 1),
        ("b", -2.0, 1),
        ("ab", -0.5, 1),
        ("\u{2581}", -3.0, 1),
    ]);
    writer.tensor("token_embd.weight", &[hidden, 12], format);
    writer.tensor("output_norm.weight", &[hidden], Format::F32);
    for layer in 0..layers {
        let mut add = |name: &str, dims: &[usize], format: Format| {
            writer.tensor(&format!("blk.{layer}.{name}.weight"), dims, format);
        };
        let mut norms = vec!["attn_norm", "ffn_norm"];
        if architecture != "gemma" {
            norms.extend(["post_attention_norm", "post_ffw_norm"]);
        }
        norms.iter().for_each(|norm| add(norm, &[hidden], Format::F32));
        add("attn_q", &[hidden, 2 * head_dim], format);
        add("attn_k", &[hidden, head_dim], format);
        add("attn_v", &[hidden, head_dim], format);
        add("attn_output", &[2 * head_dim, hidden], format);
        if architecture == "gemma3" {
            add("attn_q_norm", &[head_dim], Format::F32);
            add("attn_k_norm", &[head_dim], Format::F32);
        }
        add("ffn_gate", &[hidden, ffn], format);
        add("ffn_up", &[hidden, ffn], format);
        add("ffn_down", &[ffn, hidden], format);
    }
    writer
}
