"""Tiny random models, one for each architecture, and tiny model folders as the catalogue makes them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModelForCausalLM

from star.case import Case
from star.model import CodeModel
from star.stop import StopRule

SPECIALS = ("<|endoftext|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")

_LLAMA_LIKE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512,
}  # fmt: skip
_GPT_LIKE = {"n_embd": 32, "n_inner": 48, "n_layer": 4, "n_head": 4, "n_positions": 512}

#: What makes each architecture tiny; feed-forward widths that are not square with the model width.
SHAPES: dict[str, dict[str, Any]] = {
    "llama": _LLAMA_LIKE,
    "mistral": _LLAMA_LIKE,
    "qwen2": _LLAMA_LIKE,
    "qwen3": _LLAMA_LIKE,
    "gemma": _LLAMA_LIKE,
    "gemma2": _LLAMA_LIKE,
    "gemma3_text": _LLAMA_LIKE,
    "gpt2": _GPT_LIKE,
    "gpt_bigcode": _GPT_LIKE,
    "codegen": _GPT_LIKE | {"rotary_dim": 4},
    "gptj": _GPT_LIKE | {"rotary_dim": 4},
    "gpt_neox": _LLAMA_LIKE,
    "starcoder2": _LLAMA_LIKE,
    "phi": _LLAMA_LIKE,
}

#: The architectures of the quick part: what gates, and what is stored transposed. The whole suite has all.
SOON = ("qwen2", "gpt2")


def later(value: Any) -> Any:
    """A parameter of a test that the quick part leaves out."""
    return pytest.param(value, marks=pytest.mark.process)


EACH = [name if name in SOON else later(name) for name in SHAPES]
#: For what takes long: one of them in the quick part.
ONE = [name if name == "qwen2" else later(name) for name in SHAPES]


@cache
def tokenizer() -> Tokenizer:
    """A byte-level tokenizer without merges: 256 bytes and the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(name, special=True) for name in SPECIALS])
    return made


def network(model_type: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A random network of an architecture, in memory."""
    torch.manual_seed(seed)
    ends = {"eos_token_id": 256, "bos_token_id": 256, "pad_token_id": 256}
    config = AutoConfig.for_model(model_type, vocab_size=264, **SHAPES[model_type], **ends)
    made = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():  # as published, heads and norms start too regular to prove anything
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return made


def model(model_type: str = "qwen2", seed: int = 0, dtype: torch.dtype = torch.float32) -> CodeModel:
    """A tiny model, ready to be repaired."""
    return CodeModel(network(model_type, seed, dtype), tokenizer(), f"tiny-{model_type}-{seed}-{dtype}")


def case(
    model: CodeModel, expected: str = "x+1", prefix: str = "def f(x):\n    return ", id: str = "a"
) -> Case:
    """A case at the end of ``prefix``, in the middle of a line.

    No two of its tokens follow the same one: a tiny random model hardly looks further back than that
    (activations after the two blanks of ``x + 1`` have a cosine of 0.997 to 1 in most architectures).
    """
    return Case(id, model.encode(prefix), expected, StopRule.at(prefix, "\n"))


def folder(path: Path, model_type: str = "qwen2", seed: int = 0) -> Path:
    """A model folder as the catalogue makes them."""
    path.mkdir(parents=True)
    network(model_type, seed).save_pretrained(path)
    tokenizer().save(str(path / "tokenizer.json"))
    about = {
        "format": 1,
        "name": path.name,
        "fingerprint": f"tiny-{model_type}-{seed}",
        "source": "made by a test",
        "licence": "",
        "sha256": "",
    }
    (path / "star-model.json").write_text(json.dumps(about), "utf-8")
    return path
