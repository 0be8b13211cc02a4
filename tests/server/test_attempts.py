"""What is known of a model is kept beside it, and read anew when it no longer holds."""

from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from star.model import CodeModel
from star_lsp.attempts import _basis, _keep
from tests import tiny


def test_what_was_read_of_ordinary_code_is_kept_and_of_other_code_is_read_anew(tmp_path: Path) -> None:
    model = CodeModel.load(tiny.folder(tmp_path / "tiny"))
    basis = _basis(model, tmp_path)
    basis.learn([1, 3])
    _keep(basis, model, tmp_path)
    kept = _basis(model, tmp_path)
    assert sorted(kept.ordinary) == [1, 3]
    assert kept.ordinary[3].inputs.equal(basis.ordinary[3].inputs)
    path = tmp_path / "basis.safetensors"
    with safe_open(path, "pt") as file:
        about = file.metadata()
    for other in ({"ordinary": "what another version reads"}, {"ordinary": ""}):
        save_file(load_file(path), path, about | other)
        assert _basis(model, tmp_path).ordinary == {}
        assert _basis(model, tmp_path).factor.equal(basis.factor)


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b'{"a":1}'])
def test_a_damaged_file_beside_a_model_costs_the_seconds_again(tmp_path: Path, content: bytes) -> None:
    model = CodeModel.load(tiny.folder(tmp_path / "tiny"))
    expected = _basis(model, tmp_path).factor
    (tmp_path / "basis.safetensors").write_bytes(content)
    assert _basis(model, tmp_path).factor.equal(expected)
    assert (tmp_path / "basis.safetensors").read_bytes() != content
