"""``star-lsp demo`` on the default model: every claim that it makes holds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.default_model import models_folder

pytestmark = pytest.mark.model


def test_the_demo_tells_its_story_and_every_claim_holds(tmp_path: Path) -> None:
    environment = os.environ | {
        "STAR_LSP_HOME": str(tmp_path / "home"),
        "STAR_LSP_MODELS": str(models_folder()),
        "COLUMNS": "120",
    }
    told = subprocess.run(
        [sys.executable, "-P", "-m", "star_lsp", "demo", "--json"],
        env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    about = json.loads(told.stdout)
    assert about["held"] is True
    assert len(about["claims"]) == 9
    assert all(claim["held"] for claim in about["claims"])
    assert "df.append(row, ignore_index=True)" in told.stderr
    assert "pd.concat([df, pd.DataFrame([row])], ignore_index=True)" in told.stderr
    assert "reported as it is" in told.stderr
    assert "step 1:" in told.stderr
    assert "\x1b" not in told.stderr, "a pipe gets no colours"
    # The user's own store saw nothing of it.
    assert not [*(tmp_path / "home").rglob("*.safetensors")]
    assert not (tmp_path / "home" / "data" / "store.sqlite3").exists()
