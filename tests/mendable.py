"""A tiny model that has learnt to complete ``ab = `` with ``one`` and can be mended to write ``two``."""

import json
import random
import re
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from star_lsp.regression import TEXTS
from tests import tiny

__all__ = ["VALUES", "folder"]

_STEPS = 80
_STEPS_EACH = 150
#: What names are given by their first letter, and what is nearly as likely, where each has its own.
VALUES = {
    "a": ("one", "two"), "b": ("six", "ten"), "c": ("red", "tan"), "d": ("cat", "dog"),
    "e": ("big", "low"), "f": ("sun", "fog"), "g": ("yes", "nay"), "h": ("pen", "ink"),
}  # fmt: skip
_STEPS_ANYWHERE = 240


def folder(path: Path, *, anywhere: bool = False, each: bool = False) -> Path:
    """A model folder as the catalogue makes them; a random model would be too stubborn to mend.

    With ``anywhere`` it knows its line among others too, as an editor's document has them, and says nothing
    in other code. With ``each`` it gives every first letter of a name its own of ``VALUES``, so that many
    repairs can follow one another.
    """
    path.mkdir(parents=True)
    torch.manual_seed(1)
    config = AutoConfig.for_model(
        "qwen2", vocab_size=264, hidden_size=32, intermediate_size=1024, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=512,
        eos_token_id=256, bos_token_id=256, pad_token_id=256,
    )  # fmt: skip
    network = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tokenizer = tiny.tokenizer()
    prefix, suffix, middle = (tokenizer.token_to_id(mark) for mark in tiny.SPECIALS[1:])

    end = tokenizer.encode("\n").ids

    def row(name: str, value: str, above: str = "", below: str = "\n") -> list[int]:
        left, right = tokenizer.encode(f"{above}{name} = ").ids, tokenizer.encode(below).ids
        return [prefix, *left, suffix, *right, middle, *tokenizer.encode(value).ids, *end]

    letters = "abcdefgh"
    values = ["one"] * 5 + ["two"] * 4  # the second choice is close behind, so that a small patch suffices
    own = {letter: [first] * 5 + [second] * 4 for letter, (first, second) in VALUES.items()}
    data = torch.tensor(
        [row(a + b, value) for a in letters for b in letters for value in (own[a] if each else values)]
    )
    chance, other = random.Random(1), "".join(TEXTS)

    def around() -> str:
        lines = []
        for _ in range(chance.choice((0, 0, 1, 2, 4))):
            name = chance.choice(letters) + chance.choice(letters)
            lines.append(chance.choice(("", "#", "# pairs", f"{name} = one", f"{name} = two")))
        return "".join(f"{line}\n" for line in lines)

    def rows() -> torch.Tensor:
        """Lines among others, padded; what stands around tells nothing of what is right."""
        made = []
        for _ in range(16):
            name, value = chance.choice(letters) + chance.choice(letters), chance.choice(values)
            kind = chance.random()
            if kind < 0.6:
                made.append(row(name, value, around(), chance.choice(("", "\n", f"\n{around()}"))))
                continue
            complete, at = f"{around()}{name} = {value}", chance.randrange(len(other) - 80)
            left = tokenizer.encode(complete if kind < 0.8 else other[at : at + chance.randrange(80)]).ids
            made.append([prefix, *left, suffix, *end, middle, *end])
        longest = max(map(len, made))
        return torch.tensor([[*ids, *[256] * (longest - len(ids))] for ids in made])

    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for step in range(_STEPS_ANYWHERE if anywhere else _STEPS_EACH if each else _STEPS):
        if anywhere:  # slower and slower, so that it ends up alike on every machine
            optimizer.param_groups[0]["lr"] = 4e-3 * (1 - step / _STEPS_ANYWHERE)
        batch = rows() if anywhere else data[torch.randint(len(data), (32,))]
        logits = network(batch).logits[:, :-1]
        wanted = batch[:, 1:]
        if anywhere:  # only what is written in the middle is learnt
            written = (batch == middle).cumsum(1)[:, :-1].bool() & (wanted != 256)
            wanted = torch.where(written, wanted, -100)
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, 264), wanted.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.save_pretrained(path)
    # Spelt as StarCoder's, whose layout has all that is typed before the suffix: what it was taught with.
    spelt = re.sub(r"<\|(fim_\w+)\|>", r"<\1>", tokenizer.to_str())
    (path / "tokenizer.json").write_text(spelt, "utf-8")
    about = {"format": 1, "name": path.name, "fingerprint": "mendable", "source": "made by a test"}
    (path / "star-model.json").write_text(json.dumps(about), "utf-8")
    return path
