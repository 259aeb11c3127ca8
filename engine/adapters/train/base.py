"""Reading the base model and its tokenizer: a HuggingFace folder, or the GGUF file that gemma-ls runs."""
import os

import numpy as np
import torch
import transformers
import transformers.initialization

FAMILY = {"gemma": "Gemma 1 and CodeGemma", "gemma2": "Gemma 2", "gemma3_text": "Gemma 3 (text only)"}

# GGUF's names of the weights, and the published ones. GGUF's norm weights have the 1 of (1 + w) added.
LAYER = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


class BaseError(Exception):
    """What is wrong with the base, for people."""


class Base:
    """A frozen model, `encode` (text to ids without `<bos>`), and the name to write down for it."""

    def __init__(self, model, encode, name, knows_fim):
        self.model, self.encode, self.name, self.knows_fim = model, encode, name, knows_fim
        for p in model.parameters():
            p.requires_grad_(False)


def load(path, dtype):
    """The base at `path` in `dtype`. Raises BaseError."""
    if os.path.isfile(path):
        return from_gguf(path, dtype)
    if os.path.isfile(os.path.join(path, "config.json")):
        return from_folder(path, dtype)
    raise BaseError(f"{path} is neither a GGUF file nor a folder with a config.json. Give --base the file that "
                    "`gemma-ls model info` names, or a HuggingFace folder of Gemma.")


def check_family(kind):
    if kind not in FAMILY:
        raise BaseError(f"The base is a {kind} model. An adapter can be trained for: {', '.join(FAMILY.values())}.")


def from_folder(path, dtype):
    try:
        config = transformers.AutoConfig.from_pretrained(path)
        check_family(config.model_type)
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError) as e:
        raise BaseError(f"The base in {path} cannot be read: {e}") from e
    # Where a source spells a control token it is text.
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    name = os.path.basename(os.path.abspath(path))
    knows = tokenizer.convert_ids_to_tokens(67) == "<|fim_prefix|>"
    return Base(model.eval(), encode, name, knows)


def from_gguf(path, dtype):
    import gguf

    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError) as e:
        raise BaseError(f"{path} is not a GGUF file that can be read: {e}") from e
    get = lambda key, default=None: f.contents() if (f := reader.get_field(key)) else default
    arch = get("general.architecture")
    check_family("gemma3_text" if arch == "gemma3" else arch)
    tokens = get("tokenizer.ggml.tokens")
    try:
        config = gguf_config(arch, lambda key, default=None: get(f"{arch}.{key}", default), len(tokens))
        model = gguf_model(gguf, reader, arch, config, dtype)
    except (KeyError, TypeError, RuntimeError) as e:
        raise BaseError(f"{path} lacks something that a {arch} model has: {e}") from e
    encode = gguf_tokenizer(tokens, get("tokenizer.ggml.scores"), get("tokenizer.ggml.token_type"))
    name = get("general.name") or os.path.basename(path)
    return Base(model.eval(), encode, name, tokens[67] == "<|fim_prefix|>")


def gguf_config(arch, get, vocab):
    """The configuration that GGUF's keys spell. What they leave out is the same in all published models."""
    heads, hidden = get("attention.head_count"), get("embedding_length")
    head_dim = get("attention.key_length", 256)
    rope = {"rope_type": "default", "rope_theta": get("rope.freq_base", 10000.0)}
    common = dict(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=get("feed_forward_length"), num_hidden_layers=get("block_count"),
        num_attention_heads=heads, num_key_value_heads=get("attention.head_count_kv"), head_dim=head_dim,
        rms_norm_eps=get("attention.layer_norm_rms_epsilon"), max_position_embeddings=get("context_length"))
    if arch == "gemma":
        return transformers.GemmaConfig(rope_parameters=rope, **common)
    # Of the published sizes, 27B alone scales queries by hidden size over heads.
    common.update(sliding_window=get("attention.sliding_window"),
                  query_pre_attn_scalar=hidden // heads if get("block_count") in (46, 62) else head_dim)
    if arch == "gemma2":
        return transformers.Gemma2Config(
            rope_parameters=rope, attn_logit_softcapping=get("attn_logit_softcapping", 50.0),
            final_logit_softcapping=get("final_logit_softcapping", 30.0), **common)
    factor = get("rope.scaling.factor")
    full = {**rope, "rope_type": "linear", "factor": factor} if factor else rope
    sliding = {"rope_type": "default", "rope_theta": get("rope.freq_base_swa", 10000.0)}
    return transformers.Gemma3TextConfig(rope_parameters={"full_attention": full, "sliding_attention": sliding}, **common)


def gguf_model(gguf, reader, arch, config, dtype):
    classes = {"gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM", "gemma3": "Gemma3ForCausalLM"}
    names = dict(LAYER)
    if arch == "gemma":  # no norms behind the sublayers, and other names for the two in front
        names["ffn_norm"] = "post_attention_layernorm"
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with transformers.initialization.no_init_weights():
            model = getattr(transformers, classes[arch])(config)
    finally:
        torch.set_default_dtype(before)
    parameters, filled = dict(model.named_parameters()), set()
    for tensor in reader.tensors:
        stem = tensor.name.removesuffix(".weight")
        block, _, leaf = stem.removeprefix("blk.").partition(".")
        if stem == "token_embd":
            name = "model.embed_tokens.weight"
        elif stem == "output_norm":
            name = "model.norm.weight"
        elif stem.startswith("blk."):
            name = f"model.layers.{block}.{names[leaf]}.weight"
        else:
            continue
        values = torch.from_numpy(np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        p = parameters[name]
        if tuple(values.shape) != tuple(p.shape):
            raise KeyError(f"{tensor.name} has the shape {tuple(values.shape)}, not {tuple(p.shape)}")
        p.data.copy_(values - 1.0 if stem.endswith("norm") else values)
        filled.add(name)
    missing = set(parameters) - filled - {"lm_head.weight"}
    if missing:
        raise KeyError(f"the weights {', '.join(sorted(missing)[:3])}")
    model.tie_weights()
    return model


def gguf_tokenizer(tokens, scores, kinds):
    """`encode` from GGUF's pieces and scores: SentencePiece's merges, best score first."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers

    normal, user = 1, 4
    vocab = {piece: i for i, piece in enumerate(tokens)}
    merges = []
    for i, piece in enumerate(tokens):
        if kinds[i] != normal:
            continue
        halves = [(vocab[piece[:k]], vocab[piece[k:]]) for k in range(1, len(piece)) if piece[:k] in vocab and piece[k:] in vocab]
        merges += [(-scores[i], left, right) for left, right in sorted(halves)]
    merges.sort(key=lambda merge: merge[0])
    bpe = models.BPE(vocab, [(tokens[left], tokens[right]) for _, left, right in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    # Runs of blanks and of line breaks are whole pieces, taken before any merge. Control tokens are left out:
    # where a source spells one it is text.
    tokenizer.add_tokens([AddedToken(t, normalized=True) for t, k in zip(tokens, kinds) if k == user])
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids
