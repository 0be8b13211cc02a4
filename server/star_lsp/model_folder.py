"""What makes a folder a model of ours, checked from the cheapest to the dearest before it is taken."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from star.errors import ModelError
from star.family import supported
from star.fingerprint import INDEX, Span, read_config, spans

__all__ = ["check_fit", "check_plain", "check_size", "complete_tokenizer", "files_of", "refuse_unsupported"]

# A model's own files; whatever else lies in a folder stays there.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
OTHER_FILES = ("config.json", "generation_config.json")
TEXTS = frozenset({*TOKENIZER_FILES, *OTHER_FILES, INDEX})
LONGEST_TEXT = 1 << 27  # bytes of a tokenizer: the largest of those that are known has a quarter of it
BOTH = "the weights and the configuration are not of one model, fetch both again"
MOST_MADE_UP = 4  # times the weights that are there: more would be memory for what is no model
MOST_TABLES = 1 << 28  # bytes of what a network computes when it is made, such as a mask of its context
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
    _refuse_strangers(folder)
    config = read_config(folder)
    refuse_unsupported(str(config.get("model_type", "without a name")), folder)
    if "quantization_config" in config:
        raise ModelError(
            f"{folder} holds quantized weights, which cannot be repaired; "
            "take the model in fp32, fp16 or bf16, or its GGUF file, which is unpacked on import."
        )
    _refuse_absurd(config, folder / "config.json")
    found = spans(folder)
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


def check_size(config: Any, elements: int, what: Path) -> None:
    """Refuses a configuration that asks for far more than the weights that are there; takes no memory.

    Raises:
        ModelError: it does.
    """
    import torch
    from transformers import AutoModelForCausalLM

    _refuse_absurd({key: getattr(config, key, None) for key in BOUNDS}, what)
    with torch.device("meta"):  # this only tells how large the configuration's model is
        network = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    if network.num_parameters() > MOST_MADE_UP * elements:
        raise ModelError(f"{what} has far fewer weights than its configuration asks for; {BOTH}.")
    tables = sum(buffer.numel() * buffer.element_size() for buffer in network.buffers())
    if tables > MOST_TABLES:
        raise ModelError(
            f"{what} asks for tables of {tables >> 20} MB, which is absurd; fetch the model again."
        )


def check_fit(folder: Path, found: tuple[Span, ...]) -> None:
    """Loads the model as it will be served, and refuses what the library would make up or leave out.

    The folder must hold the files that are taken and no other: the library looks for adapters by itself.

    Raises:
        ModelError: weights, head, tokenizer and configuration are not of one model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        check_size(config, sum(math.prod(span.shape) for span in found), folder)
        network, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype="auto",
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        missing, misfits = sorted(loading["missing_keys"]), sorted(loading["mismatched_keys"])
        rows, tokens = network.get_input_embeddings().weight.shape[0], _tokens(folder)
    except ModelError:
        raise
    except Exception as error:  # a library's word on a stranger's files can be anything
        raise ModelError(f"{folder} cannot be loaded ({_short(error)}); fetch the model again.") from error
    if misfits:
        name, theirs, asked_shape = misfits[0]
        raise ModelError(
            f"{folder} has {name} as {tuple(theirs)} and its config.json asks for "
            f"{tuple(asked_shape)}; {BOTH}."
        )
    if missing:
        raise ModelError(
            f"{folder} lacks the weight {missing[0]} of its architecture; fetch the model again."
        )
    loaded = {name for name, _ in network.named_parameters()}
    for span in found:
        if span.dtype not in FLOATS and span.name in loaded:
            raise ModelError(
                f"{folder} holds {span.name} as {span.dtype}; take the model in fp32, fp16 or bf16."
            )
    if tokens > rows:
        raise ModelError(
            f"{folder} has a tokenizer of {tokens} tokens and a head of {rows}; "
            "put the tokenizer that belongs to this model beside it."
        )


def complete_tokenizer(folder: Path) -> None:
    """Writes ``tokenizer.json``, the one form that is read later, where a model has only older forms."""
    if not (folder / "tokenizer.json").exists():
        from transformers import AutoTokenizer

        AutoTokenizer.from_pretrained(folder, trust_remote_code=False).save_pretrained(folder)


def _tokens(folder: Path) -> int:
    """How many tokens the folder's tokenizer knows."""
    if (folder / "tokenizer.json").exists():
        from tokenizers import Tokenizer

        return int(Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size())
    from transformers import AutoTokenizer

    return len(AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True))


def _refuse_absurd(config: Mapping[str, object], what: Path) -> None:
    for key, most in BOUNDS.items():
        value = config.get(key)
        if value is not None and not (type(value) is int and 0 <= value <= most):
            shown = f"{value!r:.40}"
            raise ModelError(f"{what} says {key} is {shown}, which is absurd; fetch the model again.")


def _refuse_strangers(folder: Path) -> None:
    """Refuses what no model's files are.

    Links may not lead out of the folder; the hub's own cache links to blobs beside its snapshots.
    """
    if (folder / "adapter_config.json").exists():
        raise ModelError(f"{folder} is an adapter of another model; merge the two, and take the result.")
    home = folder.resolve()
    if home.parent.name == "snapshots":
        home = home.parent.parent
    for path in folder.iterdir():
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise ModelError(f"{path} is a link that leads out of the folder; put the file itself there.")
        if path.name in TEXTS and not (path.is_file() and path.stat().st_size <= LONGEST_TEXT):
            raise ModelError(f"{path} is no file of a size that any model's has; fetch the model again.")


def _short(error: Exception) -> str:
    """The first line of an error, cut to a readable length."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
