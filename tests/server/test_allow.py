"""Where completions are offered."""

import pytest

from star_lsp.allow import completion_allowed
from star_lsp.settings import CompletionSettings


@pytest.mark.parametrize(
    ("language", "path", "allowed"),
    [
        ("python", "/home/me/a.py", True),
        ("python", "", True),
        ("", "/home/me/a", True),
        ("dotenv", "/home/me/.env", False),
        ("dotenv", "/home/me/.ENV.local", False),
        ("plaintext", "C:\\Users\\me\\server.pem", False),
        ("plaintext", "/home/me/.ssh/config", False),
        ("plaintext", "/home/me/.aws/credentials", False),
        ("json", "/p/credentials/google.json", False),
        ("yaml", "/p/secrets.yaml", False),
        ("python", "/p/mysecrets.py", True),
        ("python", "/p/environment.py", True),
    ],
)
def test_secrets_are_left_alone_by_default(language: str, path: str, allowed: bool) -> None:
    assert (completion_allowed(CompletionSettings(), language, path) is None) is allowed


def test_languages_and_globs_of_the_user_decide() -> None:
    only_go = CompletionSettings(languages={"*": False, "go": True})
    assert completion_allowed(only_go, "go", "") is None
    assert completion_allowed(only_go, "python", "") == (
        "Completions are switched off for python; completion.languages says where they are offered."
    )
    assert completion_allowed(CompletionSettings(languages={"go": False}), "python", "") is None
    some = CompletionSettings(exclude=("*.{lock,min.js}", "vendor/**", "/abs/x.py"))
    for path in ("/p/a.lock", "/p/b.min.js", "/p/vendor/a/b.go", "/abs/x.py"):
        assert completion_allowed(some, "x", path) is not None
    for path in ("/p/a.js", "/p/abs/x.py", "/p/myvendor/a.go"):
        assert completion_allowed(some, "x", path) is None
    assert completion_allowed(CompletionSettings(enabled=False), "go", "") is not None
