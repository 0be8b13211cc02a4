"""What makes a folder a model of ours, checked from the cheapest to the dearest before it is taken."""

import json
from pathlib import Path

from star.errors import ModelError
from star.family import supported
from star.fingerprint import Span, read_config, spans

__all__ = ["check_fit", "check_plain", "files_of", "refuse_unsupported"]

# A model's own files; whatever else lies in a folder stays there.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
OTHER_FILES = ("config.json", "generation_config.json")
INDEX = "model.safetensors.index.json"
FLOATS = frozenset({"F32", "F16", "BF16"})
MOST_LAYERS, MOST_WIDTH, MOST_TOKENS = 1_000, 1_000_000, 10_000_000
# A bound on each of these keeps a forged configuration from asking for absurd memory or time.
BOUNDS = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers"), MOST_LAYERS),
    **dict.fromkeys(("hidden_size", "intermediate_size", "n_embd", "n_inner", "head_dim"), MOST_WIDTH),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_head"), MOST_WIDTH),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 100 * MOST_WIDTH),
    "vocab_size": MOST_TOKENS,
}


def check_plain(folder: Path) -> tuple[Span, ...]:
    """The folder's tensors, once all is checked that needs no library: seconds before any memory is taken.

    Raises:
        ModelError: the folder is not a model that can be taken; the message says why and what to do.
    """
    config = read_config(folder)
    refuse_unsupported(str(config.get("model_type", "without a name")), folder)
    if "quantization_config" in config:
        raise ModelError(
            f"{folder} holds quantized weights, which cannot be repaired; "
            "take the model in fp32, fp16 or bf16, or its GGUF file, which is unpacked on import."
        )
    for key, most in BOUNDS.items():
        value = config.get(key)
        if value is not None and not (type(value) is int and 0 <= value <= most):
            raise ModelError(
                f"{folder / 'config.json'} says {key} is {value!r}, which is absurd; fetch the model again."
            )
    _refuse_strangers(folder)
    found = spans(folder) if not (folder / INDEX).exists() else _indexed(folder)
    if not (folder / INDEX).exists() and not (folder / "model.safetensors").exists():
        raise ModelError(f"{folder} has neither model.safetensors nor {INDEX}; save it with save_pretrained.")
    if not any(
        (folder / name).exists()
        for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
    ):
        raise ModelError(
            f"{folder} has no tokenizer; put the model's tokenizer files (tokenizer.json) beside its weights."
        )
    return found


def refuse_unsupported(model_type: str, what: Path | str) -> None:
    """Refuses an architecture that cannot be repaired.

    Raises:
        ModelError: it is not among the families.
    """
    if model_type not in supported():
        raise ModelError(
            f"{what} is of the architecture {model_type!r}, which cannot be repaired; "
            f"choose a model of one of: {', '.join(supported())}."
        )


def files_of(folder: Path, found: tuple[Span, ...]) -> tuple[Path, ...]:
    """The folder's files that make the model, weights last."""
    names = [*OTHER_FILES, *TOKENIZER_FILES]
    if (folder / INDEX).exists():
        names.append(INDEX)
    plain = [folder / name for name in names if (folder / name).is_file()]
    return (*plain, *sorted({span.file for span in found}))


def check_fit(folder: Path, found: tuple[Span, ...]) -> int:
    """How many tokens the tokenizer has, once weights, head and tokenizer fit the configuration.

    The architecture is built without weights, so the check knows every shape and costs no memory.

    Raises:
        ModelError: something does not fit.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # a library's word on a stranger's files can be anything
        raise ModelError(f"{folder} cannot be loaded ({_short(error)}); fetch the model again.") from error
    by_name = {span.name: span for span in found}
    tied: dict[str, str] = dict(getattr(network, "all_tied_weights_keys", None) or {})
    for name, parameter in network.named_parameters():
        span = by_name.get(name) or by_name.get(name.removeprefix(f"{network.base_model_prefix}."))
        if span is None:
            if name in tied or name in tied.values():
                continue
            raise ModelError(f"{folder} lacks the weight {name} of its architecture; fetch the model again.")
        if span.shape != tuple(parameter.shape):
            raise ModelError(
                f"{folder} has {span.name} as {span.shape} and its config.json asks for "
                f"{tuple(parameter.shape)}; the weights and the configuration are not of one model, "
                "fetch both again."
            )
        if span.dtype not in FLOATS:
            raise ModelError(
                f"{folder} holds {span.name} as {span.dtype}; take the model in fp32, fp16 or bf16."
            )
    rows, tokens = network.get_input_embeddings().weight.shape[0], len(tokenizer)
    if tokens > rows:
        raise ModelError(
            f"{folder} has a tokenizer of {tokens} tokens and a head of {rows}; "
            "put the tokenizer that belongs to this model beside it."
        )
    return tokens


def _refuse_strangers(folder: Path) -> None:
    """Refuses links that lead out of the folder; the hub's own cache links to blobs beside its snapshots."""
    home = folder.resolve()
    if home.parent.name == "snapshots":
        home = home.parent.parent
    for path in folder.iterdir():
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise ModelError(f"{path} is a link that leads out of the folder; put the file itself there.")


def _indexed(folder: Path) -> tuple[Span, ...]:
    """The tensors of a model in several files, as its index tells."""
    try:
        weights = json.loads((folder / INDEX).read_bytes())["weight_map"]
        names = sorted({str(name) for name in weights.values()})
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder / INDEX} is damaged; fetch the model again.") from error
    missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{folder} lacks {missing[0]}, which its index names; fetch the model again.")
    found = spans(folder)
    absent = weights.keys() - {span.name for span in found}
    if absent:
        raise ModelError(
            f"{folder} lacks the weight {min(absent)}, which its index names; fetch the model again."
        )
    return tuple(span for span in found if span.file.name in names)


def _short(error: Exception) -> str:
    """The first line of an error, cut to a readable length."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
