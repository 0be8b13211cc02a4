"""The process that makes model folders: ``python -m star_lsp.convert gguf|folder …``; answers in JSON lines.

It is a process of its own so that its memory is given back and a cancel can end it at any moment. A
GGUF file is read by transformers, once; its tokenizer is built meanwhile in a second process, since
that takes as long on one core as the weights take on another.
"""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from star.errors import ModelError, StarError
from star.fingerprint import fingerprint, spans
from star_lsp.children import command
from star_lsp.errors import CatalogueError
from star_lsp.gguf_file import Header, read_header, without_vocabulary
from star_lsp.model_folder import (
    check_fit,
    check_plain,
    check_size,
    complete_tokenizer,
    files_of,
    refuse_unsupported,
)

__all__: list[str] = []

COUNTED = re.compile(r"(\d+)/(\d+) \[")
# What of a configuration names code, kernels or weights from elsewhere, which are never taken.
STRANGE = frozenset(
    {
        "auto_map", "custom_generate", "transformers_weights", "use_kernels", "kernel_config",
        *(f"{start}{what}_implementation{end}" for start in ("", "_") for what in ("attn", "experts")
          for end in ("", "_internal")),
    }
)  # fmt: skip
# Of the time a conversion takes, what is past when the weights are unpacked; the rest is writing them.
UNPACKED_SHARE = 0.8


def convert_gguf(file: Path, folder: Path) -> Mapping[str, object]:
    """Writes a GGUF file as a model folder in fp32.

    Raises:
        CatalogueError, ModelError: it is not a model that can be taken.
    """
    header = read_header(file)
    # Where the formats' names differ, the architecture is one that cannot be repaired anyway.
    refuse_unsupported({"gemma3": "gemma3_text"}.get(header.architecture, header.architecture), file)
    if not header.tokens:
        raise CatalogueError(
            f"{file} has no tokenizer in it; take a GGUF file that has its vocabulary inside."
        )
    folder.mkdir(parents=True)
    size = 4 * header.elements
    _tell({"phase": "converting", "done": 0, "total": size})
    words = command("star_lsp.convert", "tokenizer", str(file), str(folder))
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tokenizer:
        try:
            rows = _write_weights(file, header, folder, size)
            # Not communicate(): that closes its standard input first, which tells it that this process died.
            answers = tokenizer.stdout.read() if tokenizer.stdout else b""
        finally:
            tokenizer.kill()
    tokens = _tokens(answers)
    if tokens > header.tokens:
        tokens = header.tokens
        _without_additions(folder / "tokenizer.json", tokens)
    if tokens > rows:
        raise CatalogueError(
            f"{file} has a tokenizer of {tokens} tokens and a head of {rows}; "
            "its parts are not of one model, take another file."
        )
    _clean_config(folder)
    _tell_bos(folder / "tokenizer_config.json", header)
    return _finished(folder)


def take_folder(source: Path, folder: Path, move: bool) -> Mapping[str, object]:
    """Takes a Hugging Face folder as it is, byte for byte, once it is checked.

    Raises:
        ModelError: it is not a model that can be taken.
    """
    files = files_of(source, check_plain(source))
    folder.mkdir(parents=True)
    total, done = sum(path.stat().st_size for path in files), 0
    for path in files:
        if move:
            path.replace(folder / path.name)
        else:
            shutil.copyfile(path, folder / path.name)
        done += (folder / path.name).stat().st_size
        _tell({"phase": "converting", "done": done, "total": total})
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        _drop(folder / name, STRANGE)
    try:
        check_fit(folder, spans(folder))
    except ModelError as error:
        raise ModelError(str(error).replace(str(folder), str(source))) from error
    complete_tokenizer(folder)
    return _finished(folder)


def write_tokenizer(file: Path, folder: Path) -> Mapping[str, object]:
    """Writes the tokenizer that is in a GGUF file; tells how many tokens it has."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.save_pretrained(folder)
    return {"tokens": len(tokenizer)}


def _write_weights(file: Path, header: Header, folder: Path, size: int) -> int:
    """Writes weights and configuration; returns how many rows the embedding has."""
    slim = folder / "slim.gguf"
    without_vocabulary(file, header, slim)
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with contextlib.redirect_stderr(_Bar(size)):
        config = AutoConfig.from_pretrained(folder, gguf_file=slim.name, local_files_only=True)
        if not any(pair.key == f"{header.architecture}.vocab_size" for pair in header.pairs):
            config.vocab_size = header.tokens  # as the library counts it, from what the slim copy lacks
        check_size(config, header.elements, file)
        network, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            gguf_file=slim.name,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
        )
        _refuse_unfit(loading, network, file)
        slim.unlink()
        network.hf_quantizer = None
        del network.hf_quantizer  # the library will not save what it believes quantized
        del network.config.quantization_config
        network.save_pretrained(folder, max_shard_size="10TB")
    _tell({"phase": "converting", "done": size, "total": size})
    return int(network.get_input_embeddings().weight.shape[0])


def _refuse_unfit(loading: Mapping[str, Any], network: Any, file: Path) -> None:
    """Refuses a file that lacks weights of its architecture, which would be random numbers instead."""
    tied = set(getattr(network, "all_tied_weights_keys", None) or ())
    missing = sorted(set(loading.get("missing_keys", ())) - tied)
    if missing or loading.get("mismatched_keys"):
        what = (
            f"lacks the weight {missing[0]}"
            if missing
            else "has weights of another shape than its settings say"
        )
        raise CatalogueError(f"{file} {what}; take another file.")


def _clean_config(folder: Path) -> None:
    """Takes out of the configuration what is not the model's: quantization and the name of a file."""
    _drop(folder / "config.json", {"quantization_config", "_model_name_or_path", "_name_or_path"})


def _without_additions(path: Path, tokens: int) -> None:
    """Takes out of a tokenizer what the library added behind the tokens that the file has."""
    content = json.loads(path.read_bytes())
    content["added_tokens"] = [each for each in content["added_tokens"] if each["id"] < tokens]
    spelt = content["model"]["vocab"]
    if isinstance(spelt, dict):
        content["model"]["vocab"] = {text: id_ for text, id_ in spelt.items() if id_ < tokens}
    else:
        del spelt[tokens:]
    path.write_text(json.dumps(content, ensure_ascii=False), "utf-8")


def _tell_bos(path: Path, header: Header) -> None:
    """Writes beside the tokenizer whether a token begins every text, which the library leaves out."""
    content = json.loads(path.read_bytes())
    _write(path, content | {"add_bos_token": header.adds_bos})


def _drop(path: Path, keys: Collection[str]) -> None:
    """Rewrites a JSON file without some of its keys; one that has none of them keeps its bytes."""
    if path.exists():
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ModelError(f"{path} is not a JSON object; fetch the model again.")
        if not content.keys().isdisjoint(keys):
            _write(path, {key: value for key, value in content.items() if key not in keys})


def _write(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def _finished(folder: Path) -> Mapping[str, object]:
    """What the parent must know of the finished folder."""
    total = sum(span.stop - span.start for span in spans(folder))
    done, lock = 0, threading.Lock()

    def on_bytes(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            _tell({"phase": "fingerprinting", "done": done, "total": total})

    model_type = str(json.loads((folder / "config.json").read_bytes())["model_type"])
    return {"fingerprint": fingerprint(folder, on_bytes), "modelType": model_type}


def _tokens(answers: bytes) -> int:
    """How many tokens the tokenizer process wrote.

    Raises:
        CatalogueError: it could not.
    """
    told = json.loads((answers.strip().splitlines() or [b"{}"])[-1])
    if "result" not in told:
        raise CatalogueError(
            told.get("error", "The process for the tokenizer was killed; pull the model again.")
        )
    return int(told["result"]["tokens"])


class _Bar(io.TextIOBase):
    """Reads how far the library is from the progress bar that it draws on standard error."""

    def __init__(self, size: int) -> None:
        self._size, self._errors = size, sys.stderr

    def write(self, text: str) -> int:
        if "GGUF" in text and (counted := COUNTED.search(text)):
            share = UNPACKED_SHARE * int(counted[1]) / max(1, int(counted[2]))
            _tell({"phase": "converting", "done": int(share * self._size), "total": self._size})
        elif "it/s" not in text:
            self._errors.write(text)
        return len(text)

    def flush(self) -> None:
        self._errors.flush()


def _tell(what: Mapping[str, object]) -> None:
    """Writes one line for the parent."""
    sys.__stdout__.write(json.dumps(what) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


def main(words: list[str]) -> int:
    """Does what the arguments say and answers in one line; returns the exit status."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything is here, and nothing leaves the machine
    try:
        match words:
            case ["gguf", file, folder]:
                result = convert_gguf(Path(file), Path(folder))
            case ["tokenizer", file, folder]:
                result = write_tokenizer(Path(file), Path(folder))
            case ["folder", source, folder]:
                result = take_folder(Path(source), Path(folder), move=False)
            case ["take", source, folder]:
                result = take_folder(Path(source), Path(folder), move=True)
            case _:
                raise ModelError(f"unknown request {words}")
    except (StarError, CatalogueError) as error:
        _tell({"error": str(error)})
        return 1
    except Exception as error:  # libraries raise anything over a file that they do not understand
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        remedy = "take its folder of safetensors, or another file of the model"
        _tell({"error": f"{words[1]} cannot be made a model ({first[:300]}); {remedy}."})
        return 1
    _tell({"result": dict(result)})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
