"""Writes fixtures/configurations/tensors.json: what the reference implementation builds from each config.json there.

    pip install torch transformers
    python3 tests/tools/configuration_tensors.py

Models are built on the meta device, so no weights are needed and no memory is used. For each model the file has its
number of parameters and its tensors. A tensor that layers have in common is one entry: `*` stands for the layer's
number, and `layers` says which layers have it.
"""

import json
import pathlib
import re

import torch
import transformers

FOLDER = pathlib.Path(__file__).parents[1] / "fixtures" / "configurations"
WITH_PICTURES = ("gemma3", "paligemma")


def build(folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    pictures = config.model_type in WITH_PICTURES
    kind = transformers.AutoModelForImageTextToText if pictures else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        return kind.from_config(config)


def describe(model):
    tensors = {}
    for name, tensor in model.state_dict().items():
        # The output table is the embedding table.
        if name == "lm_head.weight":
            continue
        found = re.search(r"\.layers\.(\d+)\.", name)
        name = re.sub(r"\.layers\.\d+\.", ".layers.*.", name)
        entry = tensors.setdefault((name, tuple(tensor.shape)), [])
        if found:
            entry.append(int(found.group(1)))
    listed = []
    for (name, shape), layers in tensors.items():
        entry = {"name": name, "shape": shape}
        if layers:
            entry["layers"] = layers
        listed.append(entry)
    return {"parameters": sum(p.numel() for p in model.parameters()), "tensors": listed}


def main():
    models = {folder.parent.name: describe(build(folder.parent)) for folder in sorted(FOLDER.glob("*/config.json"))}
    made_by = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}
    lines = [f'"made_by": {json.dumps(made_by)}', '"models": {']
    text = "{\n" + ",\n".join([lines[0], lines[1]]) + "\n"
    blocks = []
    for name, model in models.items():
        tensors = ",\n".join("  " + json.dumps(tensor, separators=(",", ":")) for tensor in model["tensors"])
        blocks.append(f'"{name}": {{"parameters": {model["parameters"]}, "tensors": [\n{tensors}\n]}}')
    (FOLDER / "tensors.json").write_text(text + ",\n".join(blocks) + "\n}\n}\n")


if __name__ == "__main__":
    main()
