"""Tests of the adapter and of reading a base, against the golden cases. Skipped where torch is missing."""
import json
import os

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

from safetensors.torch import load_file

import base
import evaluate
import examples
import lora
import train

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../tests/fixtures/golden")
ROWS_CASE = os.path.join(GOLDEN, "adapters", "gemma3-text-rows")
TINY = ("gemma1-mqa", "gemma2-gqa", "gemma3-text")


def tiny(case="gemma3-text"):
    model = transformers.AutoModelForCausalLM.from_pretrained(os.path.join(GOLDEN, case), dtype=torch.float32).eval()
    for p in model.parameters():
        p.requires_grad_(False)
    return model


def golden(folder):
    with open(os.path.join(folder, "golden.json"), encoding="utf-8") as f:
        return json.load(f)["prompts"], load_file(os.path.join(folder, "golden.safetensors"))


def furthest(model, folder):
    prompts, tensors = golden(folder)
    with torch.no_grad():
        return max((model(input_ids=torch.tensor([p["ids"]])).logits[0] - tensors[p["logits"]]).abs().max().item() for p in prompts)


def test_an_adapter_computes_what_peft_computes():
    adapter = lora.Adapter(tiny(), *lora.shape_of(ROWS_CASE))
    adapter.load(ROWS_CASE)
    assert furthest(adapter.model, ROWS_CASE) < 2e-4


def test_switched_off_it_is_the_base_to_the_bit():
    plain, model, ids = tiny(), tiny(), torch.tensor([[2, 67, 69, 20, 68, 9]])
    adapter = lora.Adapter(model, *lora.shape_of(ROWS_CASE))
    adapter.load(ROWS_CASE)
    with torch.no_grad():
        adapter.switch(False)
        assert torch.equal(model(input_ids=ids).logits, plain(input_ids=ids).logits)
        adapter.switch(True)
        assert not torch.equal(model(input_ids=ids).logits, plain(input_ids=ids).logits)


def test_what_is_saved_has_peft_s_names_and_comes_back(tmp_path):
    adapter = lora.Adapter(tiny(), *lora.shape_of(ROWS_CASE))
    adapter.load(ROWS_CASE)
    adapter.save(tmp_path, "tiny")
    theirs, ours = load_file(os.path.join(ROWS_CASE, "adapter_model.safetensors")), load_file(tmp_path / "adapter_model.safetensors")
    assert theirs.keys() == ours.keys()
    assert all(theirs[k].dtype == ours[k].dtype and torch.equal(theirs[k], ours[k]) for k in theirs)
    assert json.loads((tmp_path / "fim.json").read_text()) == {"prefix": 67, "middle": 68, "suffix": 69, "separator": 70, "order": "spm"}
    assert "Gemma Terms of Use" in (tmp_path / "NOTICE").read_text()
    assert lora.shape_of(tmp_path) == (16, 32)


def test_an_adapter_of_another_base_is_refused():
    adapter = lora.Adapter(tiny("gemma2-gqa"), 16, 32)
    with pytest.raises(lora.AdapterError, match="does not fit"):
        adapter.load(ROWS_CASE)
    with pytest.raises(lora.AdapterError, match="rank_pattern"):
        lora.shape_of(os.path.join(GOLDEN, "adapters", "gemma3-text-patterns"))


def test_training_steps_lower_the_loss_and_move_every_part():
    torch.manual_seed(0)
    model = tiny()
    adapter = lora.Adapter(model, 4, 8)
    loss_of = train.Loss(model, examples.vocabulary({}, 200, 256))
    factors, rows = adapter.parameters()
    before = [p.clone() for p in rows + factors[1::2]]
    optimizer = torch.optim.AdamW(factors + rows, lr=1e-2)
    some = [examples.lay_out(examples.Cut("p", "abc", "def", "ghi"), lambda t: [100 + ord(c) - 97 for c in t], 64)] * 2
    batch = [torch.tensor(r) for r in examples.batch_of(some)]
    losses = []
    with torch.enable_grad():
        for _ in range(12):
            loss = loss_of(*batch, batch[2].sum())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0] - 1
    moved = [not torch.equal(a, b) for a, b in zip(before, rows + factors[1::2])]
    assert all(moved)


def test_what_counts_less_moves_the_loss_less():
    torch.manual_seed(0)
    loss_of = train.Loss(tiny(), None)
    ids, labels = torch.tensor([[2, 100, 101, 102]]), torch.tensor([[100, 101, 102, 1]])
    each = [loss_of(ids, labels, torch.eye(4)[i:i + 1], 1.0) for i in range(4)]
    mixed = loss_of(ids, labels, torch.tensor([[0.0, 0.5, 1.0, 1.0]]), 2.5)
    assert abs(mixed - (0.5 * each[1] + each[2] + each[3]) / 2.5) < 1e-4


@pytest.mark.parametrize("case", TINY)
def test_a_gguf_base_computes_what_its_folder_computes(case, tmp_path):
    path = write_gguf(case, tmp_path / "base.gguf")
    read = base.load(path, torch.float32)
    with open(os.path.join(GOLDEN, case, "config.json"), encoding="utf-8") as f:
        scalar = json.load(f).get("query_pre_attn_scalar")
    for layer in read.model.model.layers if scalar else ():  # GGUF does not say it; the tiny ones are no published size
        layer.self_attn.scaling = scalar ** -0.5
    assert furthest(read.model, os.path.join(GOLDEN, case)) < 2e-4
    assert read.encode("ab a") == [5, 7] and not read.knows_fim


def write_gguf(case, path):
    """A case as a GGUF file: its weights, and a vocabulary in which `a`, `b` and `ab` are pieces."""
    with open(os.path.join(GOLDEN, case, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    arch = {"gemma": "gemma", "gemma2": "gemma2", "gemma3_text": "gemma3"}[config["model_type"]]
    w = gguf.GGUFWriter(str(path), arch)
    w.add_context_length(config["max_position_embeddings"])
    w.add_embedding_length(config["hidden_size"])
    w.add_block_count(config["num_hidden_layers"])
    w.add_feed_forward_length(config["intermediate_size"])
    w.add_head_count(config["num_attention_heads"])
    w.add_head_count_kv(config["num_key_value_heads"])
    w.add_layer_norm_rms_eps(config["rms_norm_eps"])
    w.add_key_length(config["head_dim"])
    if "sliding_window" in config:
        w.add_sliding_window(config["sliding_window"])
    if config.get("attn_logit_softcapping"):
        w.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        w.add_final_logit_softcapping(config["final_logit_softcapping"])
    if arch == "gemma3":
        w.add_rope_freq_base(1000000.0)
    pieces = ["<pad>", "<eos>", "<bos>", "a", "b", "ab", "\u2581", "\u2581a"]
    pieces += [f"<unused{i}>" for i in range(len(pieces), config["vocab_size"])]
    w.add_tokenizer_model("llama")
    w.add_token_list(pieces)
    w.add_token_scores([-float(i) for i in range(len(pieces))])
    w.add_token_types([3 if p.startswith("<") else 1 for p in pieces])
    names = {v: k for k, v in base.LAYER.items()}
    if arch == "gemma":
        names["post_attention_layernorm"] = "ffn_norm"
    for name, t in load_file(os.path.join(GOLDEN, case, "model.safetensors")).items():
        parts = name.removesuffix(".weight").split(".")
        if parts[1] == "layers":
            known = f"blk.{parts[2]}.{names['.'.join(parts[3:])]}"
        else:
            known = {"embed_tokens": "token_embd", "norm": "output_norm"}[parts[1]]
        w.add_tensor(known + ".weight", (t + 1.0 if "norm" in known else t).numpy())
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return str(path)


def test_what_is_no_base_is_told_so(tmp_path):
    with pytest.raises(base.BaseError, match="neither a GGUF file nor a folder"):
        base.load(str(tmp_path), torch.float32)
    (tmp_path / "a.gguf").write_bytes(b"GGXX" + b"\0" * 64)
    with pytest.raises(base.BaseError, match="not a GGUF file"):
        base.load(str(tmp_path / "a.gguf"), torch.float32)


def test_judging_counts_what_the_model_says():
    class Echo:
        """Knows that each token is followed by the next id."""
        device, config = "cpu", transformers.PretrainedConfig()
        lm_head = torch.nn.Linear(32, 32, bias=False)
        lm_head.weight.data = torch.eye(32)

        class model:
            def __new__(cls, input_ids, use_cache):
                hidden = torch.nn.functional.one_hot((input_ids + 1) % 32, 32).float() * 20
                return type("Out", (), {"last_hidden_state": hidden})

    stand_in = type("Base", (), {"model": Echo})
    right = examples.Example([9, 10, 11], [10, 11, 12], [1, 1, 1], 2, "ab")
    wrong = examples.Example([9, 10, 15], [10, 15, examples.EOS], [1, 1, 1], 2, "ab")
    got = evaluate.judge_kind(stand_in, [right, wrong], 2)
    assert (got["exact"], got["first"], got["ends"], got["cases"]) == (0.5, 1.0, 0.0, 2)
    assert got["nats"] == pytest.approx(20 / 4, rel=1e-3)
