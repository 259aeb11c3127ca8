//! A writer of small GGUF files for tests.

use std::io::Write;

use gemma_kernels::Format;

const ALIGNMENT: usize = 32;

/// A GGUF file in the making. Setting a key again replaces its value.
pub(crate) struct Writer {
    pub(crate) version: u32,
    metadata: Vec<(String, Vec<u8>)>,
    tensors: Vec<Tensor>,
}

struct Tensor {
    name: String,
    /// ggml's order: fastest dimension first.
    dims: Vec<usize>,
    number: u32,
    bytes: Vec<u8>,
}

/// A string of the container: length and bytes.
fn string(text: &str) -> Vec<u8> {
    [(text.len() as u64).to_le_bytes().as_slice(), text.as_bytes()].concat()
}

impl Writer {
    fn new() -> Self {
        Self { version: 3, metadata: Vec::new(), tensors: Vec::new() }
    }

    fn set(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.metadata.retain(|(name, _)| name != key);
        self.metadata.push((key.to_owned(), [kind.to_le_bytes().as_slice(), value].concat()));
    }

    pub(crate) fn u32(&mut self, key: &str, value: u32) {
        self.set(key, 4, &value.to_le_bytes());
    }

    pub(crate) fn f32(&mut self, key: &str, value: f32) {
        self.set(key, 6, &value.to_le_bytes());
    }

    pub(crate) fn string(&mut self, key: &str, value: &str) {
        self.set(key, 8, &string(value));
    }

    fn array(&mut self, key: &str, kind: u32, items: &[Vec<u8>]) {
        let head = [kind.to_le_bytes().as_slice(), &(items.len() as u64).to_le_bytes()].concat();
        self.set(key, 9, &[head, items.concat()].concat());
    }

    /// Pieces of a vocabulary: spelling, score, llama.cpp's type.
    pub(crate) fn vocabulary(&mut self, pieces: &[(&str, f32, i32)]) {
        self.string("tokenizer.ggml.model", "llama");
        let spellings: Vec<_> = pieces.iter().map(|p| string(p.0)).collect();
        let scores: Vec<_> = pieces.iter().map(|p| p.1.to_le_bytes().to_vec()).collect();
        let types: Vec<_> = pieces.iter().map(|p| p.2.to_le_bytes().to_vec()).collect();
        self.array("tokenizer.ggml.tokens", 8, &spellings);
        self.array("tokenizer.ggml.scores", 6, &scores);
        self.array("tokenizer.ggml.token_type", 5, &types);
    }

    /// A tensor of arbitrary bytes; `dims` in ggml's order.
    fn tensor(&mut self, name: &str, dims: &[usize], format: Format) {
        let len = format.row_bytes(dims[0]).unwrap() * dims[1..].iter().product::<usize>();
        let seed = self.tensors.len();
        let bytes = (0..len).map(|i| (i * 31 + seed * 7) as u8).collect();
        self.tensors.push(Tensor {
            name: name.to_owned(),
            dims: dims.to_vec(),
            number: number(format),
            bytes,
        });
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
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            out.extend(string(key));
            out.extend(value);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            out.extend(string(&tensor.name));
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|&d| out.extend((d as u64).to_le_bytes()));
            out.extend(tensor.number.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += tensor.bytes.len().next_multiple_of(ALIGNMENT);
        }
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
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

fn number(format: Format) -> u32 {
    match format {
        Format::F32 => 0,
        Format::F16 => 1,
        Format::Q4_0 => 2,
        Format::Q4_1 => 3,
        Format::Q5_0 => 6,
        Format::Q5_1 => 7,
        Format::Q8_0 => 8,
        Format::Q4_K => 12,
        Format::Q5_K => 13,
        Format::Q6_K => 14,
        Format::BF16 => 30,
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
