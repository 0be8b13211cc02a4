"""The process that fetches from the hub: ``python -m star_lsp.hub file|snapshot …``; answers in JSON lines.

It is a process of its own so that a pull can be cancelled at any moment, and so that the server never
loads the hub's client.
"""

import hashlib
import json
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from star.errors import ModelError
from star.fingerprint import read_config
from star_lsp.model_folder import refuse_unsupported

__all__ = ["reach"]

REACH_SECONDS = 3.0
FETCHED_AT_ONCE = 4
# Weights, configuration and tokenizer; never a pickle, never code.
WANTED = ["*.safetensors", "*.json", "*.jinja", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model"]
UNWANTED = [
    "*/*",
    "*.py",
    "*.bin",
    "*.pt",
    "*.pth",
    "consolidated*",
    "training_args*",
    "trainer_state*",
    "optimizer*",
]


def reach(endpoint: str) -> str:
    """Why the hub cannot be reached, in a few words; empty when it answers.

    Asked before its client is, because that tries for half a minute where there is no network.
    """
    reasons = ["the hub does not answer"]
    thread = threading.Thread(target=lambda: reasons.append(_answer(endpoint)), daemon=True)
    thread.start()  # names are looked up without a time limit, so the whole thing runs aside
    thread.join(REACH_SECONDS)
    return reasons[-1]


def _answer(endpoint: str) -> str:
    """As ``reach``, in its own time."""
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=REACH_SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        return f"a proxy refuses the hub (status {error.code})" if error.code in (403, 407) else ""
    except urllib.error.URLError as error:
        if "CERTIFICATE" in str(error.reason):  # its client may know another set of certificates
            return ""
        return "the hub cannot be reached from here"
    except (OSError, ValueError):
        return "the hub cannot be reached from here"


def fetch_file(repository: str, revision: str, file: str, folder: Path) -> Mapping[str, object]:
    """Fetches one file into the folder, going on where an earlier try stopped.

    The client's own download keeps nothing of one that was cut off, so its parts are put together here: what
    has come lies under the name of what the hub has (its etag), and is gone on with if that is still so.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    url, headers = hf_hub_url(repository, file, revision=revision), build_hf_headers()
    about = get_hf_file_metadata(url, headers=headers)
    name = hashlib.sha256(f"{file} {about.etag}".encode()).hexdigest()
    parts, target = folder / ".parts", folder / file
    parts.mkdir(mode=0o700, exist_ok=True)
    part, done = parts / name, parts / f"{name}.done"
    if done.exists() and target.exists() and target.stat().st_size == about.size:
        return {"path": str(target)}
    if part.exists() and part.stat().st_size > (about.size or 0):
        part.unlink()
    with part.open("ab") as stream:
        http_get(url, stream, resume_size=stream.tell(), headers=headers, expected_size=about.size)
    part.replace(target)
    done.touch()
    return {"path": str(target)}


def fetch_snapshot(repository: str, revision: str, folder: Path) -> Mapping[str, object]:
    """Fetches what a model folder needs, and tells the size of it beforehand.

    Raises:
        ModelError: the model's architecture cannot be repaired.
    """
    from huggingface_hub import snapshot_download

    plan = snapshot_download(
        repository,
        revision=revision or None,
        allow_patterns=WANTED,
        ignore_patterns=UNWANTED,
        local_dir=folder,
        dry_run=True,
    )
    if not any(file.filename.endswith(".safetensors") for file in plan):
        raise LookupError(f"{repository} has no safetensors; a GGUF file of it can be imported")
    _tell({"total": sum(file.file_size or 0 for file in plan)})
    commit = next(file.commit_hash for file in plan)
    fetch_file(repository, commit, "config.json", folder)
    model_type = read_config(folder).get("model_type", "without a name")
    refuse_unsupported(str(model_type), repository)  # before gigabytes are fetched
    with ThreadPoolExecutor(FETCHED_AT_ONCE) as threads:
        list(threads.map(lambda each: fetch_file(repository, commit, each.filename, folder), plan))
    return {"commit": commit}


def _tell(what: Mapping[str, object]) -> None:
    """Writes one line for the parent."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _reason(error: Exception, repository: str) -> str:
    """A few words about what the hub's client raised."""
    from huggingface_hub import errors

    match error:
        case ModelError():
            return str(error)
        case LookupError() if "safetensors" in str(error):
            return str(error)
        case errors.GatedRepoError():
            return f"the hub gives {repository} only to those it let in (log in with hf auth login)"
        case errors.RepositoryNotFoundError() | errors.RevisionNotFoundError():
            return f"the hub has no {repository}, or not at that revision"
        case errors.EntryNotFoundError():
            return f"the hub's {repository} lacks the file"
    return f"the hub failed ({type(error).__name__}: {(str(error).strip().splitlines() or ['?'])[0][:200]})"


def main(words: list[str]) -> int:
    """Does what the arguments say and answers in one line; returns the exit status."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        _tell({"error": "HF_HUB_OFFLINE is set"})
        return 1
    if reason := reach(constants.ENDPOINT):
        _tell({"error": reason})
        return 1
    try:
        match words:
            case ["file", repository, revision, file, folder]:
                result = fetch_file(repository, revision, file, Path(folder))
            case ["snapshot", repository, revision, folder]:
                result = fetch_snapshot(repository, revision, Path(folder))
            case _:
                raise ValueError(f"unknown request {words}")
    except Exception as error:  # whatever its client raises, the parent goes on to the next source
        _tell({"error": _reason(error, words[1])})
        return 1
    _tell({"result": dict(result)})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
