"""Reading a model from the inside, and models that cannot be read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE

from star.errors import CaseError, ModelError, UnsupportedFamily
from star.model import CodeModel
from tests import tiny

IDS = tuple(range(5, 45))


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_a_run_resumed_on_its_trunk_gives_the_logits_of_a_whole_run_bit_for_bit(
    model: CodeModel, layer: int
) -> None:
    whole = model.logits(IDS)
    trunk = model.trunk(IDS, layer)
    with torch.no_grad(), model.resumed(trunk):
        assert torch.equal(model.logits(IDS), whole)
    assert torch.equal(model.logits(IDS), whole)  # forward is back


def test_what_is_below_the_trunk_does_not_run_again(model: CodeModel) -> None:
    trunk = model.trunk(IDS, 2)
    ran: list[int] = []
    handles = [
        model.projection(layer).register_forward_hook(lambda *_, layer=layer: ran.append(layer))
        for layer in range(model.depth)
    ]
    with model.resumed(trunk):
        model.logits(IDS)
    for handle in handles:
        handle.remove()
    assert ran == [2, 3]


def test_forward_is_restored_when_a_resumed_run_fails(one: CodeModel) -> None:
    whole = one.logits(IDS)
    with pytest.raises(CaseError), one.resumed(one.trunk(IDS, 2)):
        one.logits([1] * 600)
    assert torch.equal(one.logits(IDS), whole)


def test_a_layer_without_its_mlp_adds_what_enters_it(model: CodeModel) -> None:
    whole = model.logits(IDS)
    with model.without_mlp(1):
        assert not torch.equal(model.logits(IDS), whole)
    assert torch.equal(model.logits(IDS), whole)


def test_logits_at_positions_are_those_of_the_whole_run(model: CodeModel) -> None:
    assert torch.allclose(model.logits(IDS, [3, 17, 39]), model.logits(IDS)[[3, 17, 39]], atol=1e-5)


def test_a_text_longer_than_the_context_is_refused(model: CodeModel) -> None:
    assert model.context == 512
    with pytest.raises(CaseError, match="513 tokens are more than this model's context of 512; shorten"):
        model.logits([1] * 513)


def test_text_that_spells_a_special_token_stays_text(one: CodeModel) -> None:
    assert one.token_id("<|endoftext|>") == 256
    assert one.stop_ids == {256, 257, 258, 259}
    assert max(one.encode("<|endoftext|>")) < 256


@pytest.mark.parametrize("text", ["x", " x", "\n    y", "é😀", ""])
def test_text_that_follows_other_text_survives_the_tokenizer(one: CodeModel, text: str) -> None:
    assert one.decode_next(one.encode("a = "), one.encode_next(text)) == text


def test_a_network_of_an_unknown_architecture_is_refused_by_name() -> None:
    network = tiny.network("gpt2")
    network.config.model_type = "mamba"
    with pytest.raises(UnsupportedFamily, match=r"'mamba'.*gpt2.*starcoder2"):
        CodeModel(network, tiny.tokenizer(), "tiny")


def test_a_tokenizer_with_more_tokens_than_the_head_has_rows_is_refused() -> None:
    tokenizer = Tokenizer.from_str(tiny.tokenizer().to_str())
    tokenizer.add_tokens([f"token{number}" for number in range(5)])
    with pytest.raises(ModelError, match="head of this model has 264 rows and its tokenizer 265 tokens"):
        CodeModel(tiny.network("qwen2"), tokenizer, "tiny")


def test_a_model_without_an_end_is_refused() -> None:
    network = tiny.network("qwen2")
    network.config.eos_token_id = None
    with pytest.raises(ModelError, match="no token that ends a text"):
        CodeModel(network, Tokenizer(BPE({"a": 0}, [])), "tiny")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder."""
    return tiny.folder(tmp_path_factory.mktemp("models") / "tiny", "qwen2")


def test_a_loaded_model_is_the_model_that_was_saved(made: Path) -> None:
    loaded = CodeModel.load(made)
    assert torch.equal(loaded.logits(IDS), tiny.model("qwen2").logits(IDS))
    assert loaded.fingerprint == "tiny-qwen2-0"


def _cut(name: str, share: float) -> Callable[[Path], object]:
    def do(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return do


def _config(**changes: object) -> Callable[[Path], object]:
    def do(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return do


DAMAGE: dict[str, Callable[[Path], object]] = {
    **{f"no {name}": lambda folder, name=name: (folder / name).unlink()
       for name in ("config.json", "tokenizer.json", "star-model.json", "model.safetensors")},
    **{f"half of {name}": _cut(name, 0.5)
       for name in ("config.json", "tokenizer.json", "star-model.json", "model.safetensors")},
    "no weights": _cut("model.safetensors", 0),
    "a tokenizer of another kind": lambda folder: (folder / "tokenizer.json").write_text("{}"),
    "no fingerprint": lambda folder: (folder / "star-model.json").write_text("{}"),
    "another shape": _config(hidden_size=64),
    "one more layer": _config(num_hidden_layers=5),
    "a size that is none": _config(hidden_size="wide"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_refused_in_one_sentence_that_names_it(
    made: Path, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(made, folder)
    DAMAGE[damage](folder)
    with pytest.raises(ModelError) as refused:
        CodeModel.load(folder)
    message = str(refused.value)
    assert str(folder) in message
    assert "\n" not in message
    assert message.endswith(".")


def test_a_folder_of_an_unknown_architecture_is_refused_before_it_is_read(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "other")
    _config(model_type="t5")(tmp_path / "other")
    with pytest.raises(UnsupportedFamily, match="'t5'"):
        CodeModel.load(tmp_path / "other")
