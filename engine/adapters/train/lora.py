"""The adapter: low-rank factors beside the projections, the trained embedding rows, and the folder they are kept in.

The folder is PEFT's: `adapter_config.json` and `adapter_model.safetensors` load there as they are. `fim.json` beside
them tells gemma-ls the layout.
"""
import json
import math
import os

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from examples import FIM, ROWS

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ROWS_NAME = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
NOTICE = """Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms.
This adapter is a Model Derivative of {base}: it was changed by low-rank fine-tuning for fill-in-the-middle code completion.
"""


class AdapterError(Exception):
    """What is wrong with an adapter's folder, for people."""


class Low(nn.Module):
    """A frozen product with `alpha / rank * B (A x)` beside it. A and B are kept in float32."""

    def __init__(self, product, rank, alpha):
        super().__init__()
        self.product, self.scale = product, alpha / rank
        device = product.weight.device
        self.a = nn.Parameter(torch.empty(rank, product.in_features, dtype=torch.float32, device=device))
        self.b = nn.Parameter(torch.zeros(product.out_features, rank, dtype=torch.float32, device=device))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x):
        low = F.linear(F.linear(x, self.a.to(x.dtype)), (self.scale * self.b).to(x.dtype))
        return self.product(x) + low


class Adapter:
    """An adapter put into a base model, which it changes in place."""

    def __init__(self, model, rank, alpha):
        self.model, self.rank, self.alpha = model, rank, alpha
        self.on = True
        self.low = {}
        for name, module in list(model.named_modules()):
            leaf = name.rpartition(".")[2]
            if leaf in TARGETS and isinstance(module, nn.Linear):
                self.low[name] = Low(module, rank, alpha)
                setattr(model.get_submodule(name.rpartition(".")[0]), leaf, self.low[name])
        embedding = model.get_input_embeddings()
        self.rows = nn.Parameter(embedding.weight.detach()[ROWS].float().clone())
        embedding.register_forward_hook(self._put_rows)

    def _put_rows(self, embedding, args, out):
        """Gemma scales embeddings on their way out, so the rows are scaled alike. The output product is not touched."""
        if not self.on:
            return out
        ids = args[0]
        scale = getattr(embedding, "embed_scale", torch.ones(()))
        rows = (self.rows.to(out.dtype) * scale.to(out.dtype))
        # The ids lie next to each other, so the place in `rows` is a difference.
        at = (ids - ROWS[0]).clamp(0, len(ROWS) - 1)
        trained = ((ids >= ROWS[0]) & (ids <= ROWS[-1])).unsqueeze(-1)
        return torch.where(trained, rows[at], out)

    def parameters(self):
        """(low-rank factors, rows)."""
        return [p for low in self.low.values() for p in (low.a, low.b)], [self.rows]

    def numbers(self):
        return sum(p.numel() for group in self.parameters() for p in group)

    def switch(self, on):
        """Turns the adapter on or off; off, the model is the base to the bit."""
        self.on = on
        for name, low in self.low.items():
            setattr(self.model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], low if on else low.product)

    def save(self, folder, base_name):
        """Writes the folder. Factors in float16, rows in float32 as rows and not as differences."""
        os.makedirs(folder, exist_ok=True)
        tensors = {ROWS_NAME: self.rows.detach().float().cpu().contiguous()}
        for name, low in self.low.items():
            for part, p in (("lora_A", low.a), ("lora_B", low.b)):
                tensors[f"base_model.model.{name}.{part}.weight"] = p.detach().to("cpu", torch.float16).contiguous()
        with open(os.path.join(folder, "adapter_model.safetensors"), "wb") as f:  # save_file would hide it from others
            f.write(save(tensors, metadata={"format": "pt"}))
        config = dict(
            peft_type="LORA", task_type="CAUSAL_LM", base_model_name_or_path=base_name, r=self.rank, lora_alpha=self.alpha,
            lora_dropout=0.0, bias="none", fan_in_fan_out=False, use_rslora=False, use_dora=False, inference_mode=True,
            init_lora_weights=True, modules_to_save=None, target_modules=TARGETS, trainable_token_indices={"embed_tokens": ROWS})
        write_json(os.path.join(folder, "adapter_config.json"), config)
        write_json(os.path.join(folder, "fim.json"), {**FIM, "order": "spm"})
        with open(os.path.join(folder, "NOTICE"), "w", encoding="utf-8") as f:
            f.write(NOTICE.format(base=base_name))

    def load(self, folder):
        """Takes over the numbers of an adapter of the same shape. Raises AdapterError."""
        try:
            tensors = load_file(os.path.join(folder, "adapter_model.safetensors"))
        except (OSError, SafetensorError) as e:
            raise AdapterError(f"The adapter in {folder} cannot be read: {e}") from e
        places = {ROWS_NAME: self.rows}
        for name, low in self.low.items():
            places[f"base_model.model.{name}.lora_A.weight"] = low.a
            places[f"base_model.model.{name}.lora_B.weight"] = low.b
        for name, p in places.items():
            if name not in tensors or tensors[name].shape != p.shape:
                found = f"the shape {list(tensors[name].shape)}" if name in tensors else "no tensor"
                raise AdapterError(f"The adapter in {folder} does not fit this base: it has {found} for {name}, "
                                   f"where {list(p.shape)} is wanted.")
            p.data.copy_(tensors[name])


def shape_of(folder):
    """(rank, alpha) of an adapter's folder. Raises AdapterError."""
    try:
        with open(os.path.join(folder, "adapter_config.json"), encoding="utf-8") as f:
            config = json.load(f)
        rank, alpha = int(config["r"]), config["lora_alpha"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise AdapterError(f"{folder} is not an adapter's folder: {e!r}") from e
    odd = [k for k in ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "layers_to_transform") if config.get(k)]
    if odd or sorted(config.get("target_modules", [])) != sorted(TARGETS):
        raise AdapterError(f"Training cannot start from the adapter in {folder}: it must have plain LoRA on {', '.join(TARGETS)}"
                           + (f", and it sets {', '.join(odd)}." if odd else "."))
    return rank, alpha


def write_json(path, value):
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        json.dump(value, f, indent=1)
        f.write("\n")
