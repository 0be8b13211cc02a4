"""What looks like a secret is masked in what is kept, and never taught; what only looks random stays."""

import ast
import json
import random
import string
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from star_lsp.cli.case_file import read_cases
from star_lsp.errors import FlagError
from star_lsp.mask import mask, secrets_in, taught
from star_lsp.store import Store
from tests.server.shell import Run

ROOT = Path(__file__).parents[2]


def made(alphabet: str, count: int, seed: int = 7) -> str:
    """Random characters, so that no line here looks like a credential to anybody who scans these sources."""
    return "".join(random.Random(f"{alphabet}{seed}").choices(alphabet, k=count))


UPPER, LOWER, DIGITS, HEX = string.ascii_uppercase, string.ascii_lowercase, string.digits, "0123456789abcdef"
ALNUM = UPPER + LOWER + DIGITS

#: A line of code, what is secret in it, and the language.
CREDENTIALS = {
    "aws id": ('key_id = "{}"', "AKIA" + made(UPPER + DIGITS, 16), "python"),
    "aws secret": ('aws_secret_access_key = "{}"', made(ALNUM + "/+", 40), "python"),
    "aws session": ('AWS_SESSION_TOKEN="{}"', made(ALNUM + "/+", 200), "shellscript"),
    "github": ('Github("{}")', "ghp_" + made(ALNUM, 36), "python"),
    "github fine": ("login(token='{}')", "github_pat_" + made(ALNUM, 22) + "_" + made(ALNUM, 59), "python"),
    "gitlab": ("git clone https://oauth2:{}@git.example.org", "glpat-" + made(ALNUM, 20), "shellscript"),
    "slack": ('slack = "{}"', f"xoxb-{made(DIGITS, 12)}-{made(DIGITS, 12)}-{made(ALNUM, 24)}", "go"),
    "slack hook": (
        'post("{}")',
        f"https://hooks.slack.com/services/T{made(UPPER, 8)}/B{made(UPPER, 8)}/{made(ALNUM, 24)}",
        "python",
    ),
    "stripe": ('stripe.api_key = "{}"', "sk_live_" + made(ALNUM, 24), "python"),
    "stripe long": ('stripe.api_key = "{}"', "sk_live_51" + made(ALNUM, 97), "python"),
    "google": ('const maps = "{}"', "AIza" + made(ALNUM + "-_", 35), "javascript"),
    "google secret": ('client("{}")', "GOCSPX-" + made(ALNUM, 28), "python"),
    "openai": ('OpenAI(api_key="{}")', "sk-proj-" + made(ALNUM + "-_", 120), "python"),
    "anthropic": ('Anthropic(api_key="{}")', "sk-ant-api03-" + made(ALNUM, 90), "python"),
    "hugging face": ('login("{}")', "hf_" + made(ALNUM, 34), "python"),
    "npm": ("//registry.example.org/:_authToken={}", "npm_" + made(ALNUM, 36), "properties"),
    "npm of old": ("//registry.example.org/:_authToken={}", "0a1b2c3d-" + made(HEX, 27), "properties"),
    "pypi": ('twine("{}")', "pypi-AgEIcHlwaS5vcmc" + made(ALNUM, 90), "python"),
    "sendgrid": ('SendGrid("{}")', f"SG.{made(ALNUM, 22)}.{made(ALNUM, 43)}", "python"),
    "telegram": ('Bot("{}")', made(DIGITS, 9) + ":" + made(ALNUM, 35), "python"),
    "azure storage": ('"AccountName=a;{};Suffix=x"', "AccountKey=" + made(ALNUM, 86) + "==", "csharp"),
    "digitalocean": ('do("{}")', "dop_v1_" + made(HEX, 64), "python"),
    "age": ('"{}"', "AGE-SECRET-KEY-1" + made(UPPER + DIGITS, 58), "python"),
    "jwt": ('headers = jwt("{}")', "", "python"),
    "bearer": ("""curl -H "Authorization: Bearer {}" x""", made(ALNUM, 40), "shellscript"),
    "database url": ('connect("postgres://app:{}@db:5432/app")', made(ALNUM, 12), "python"),
    "password": ('password = "{}"', "tr0ub4dor&3", "python"),
    "password argument": ('connect(host, password="{}")', "Vb7!kQz29", "python"),
    "password in json": ('  "db_password": "{}",', "Vb7kQz29xw", "json"),
    "password in yaml": ("password: {}", "Vb7kQz29xw", "yaml"),
    "password in ini": ("DB_PASSWORD={}", "Vb7kQz29xw", "ini"),
    "password compared": ('if password == "{}":', "Vb7kQz29xw", "python"),
    "api key": ('api_key = "{}"', made(HEX, 32), "python"),
    "go": ('apiKey := "{}"', made(ALNUM, 32), "go"),
    "token": ('token = "{}"', made(ALNUM, 40), "python"),
    "access token": ('access_token: "{}"', made(LOWER + DIGITS, 24), "javascript"),
    "secret of django": ('SECRET_KEY = "{}"', "django-insecure-" + made(ALNUM + "#*!-", 50), "python"),
    "passphrase": ("passphrase = '{}'", "Vb7!kQz29", "python"),
}  # fmt: skip


def jwt() -> str:
    """A token that is formally right."""
    import base64

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'HS256'})}.{part({'sub': 'someone', 'iat': 17})}.{made(ALNUM, 43)}"


@pytest.mark.parametrize("name", CREDENTIALS)
def test_credentials_of_common_shapes_are_masked_and_their_surroundings_stay(name: str) -> None:
    line, secret, language = CREDENTIALS[name]
    secret = secret or jwt()
    before, after = line.split("{}")
    prefix, suffix = f"import a\n{before}{secret}{after}\nb = ", f"\nreturn {secret!r}\n"
    masked = mask(prefix, suffix, ["c()"], [f"see {secret}"], language)
    assert masked.kinds
    assert masked.told.startswith("Masked before it was kept")
    texts = (masked.prefix, masked.suffix, *masked.others)
    assert not [text for text in texts if secret in text or secret[4:] in text or secret[:-4] in text]
    assert (len(masked.prefix), len(masked.suffix)) == (len(prefix), len(suffix))
    assert masked.prefix.startswith("import a\n")
    assert masked.prefix.endswith(f"{after}\nb = ")
    assert masked.middles == ("c()",)


@pytest.mark.parametrize(
    "text",
    [
        f'digest = "{made(HEX, 64)}"',
        f"sha1: {made(HEX, 40)}",
        f'assert checksum == "{made(HEX, 32)}"',
        f'"integrity": "sha512-{made(ALNUM + "+/", 86)}=="',
        'id = "123e4567-e89b-42d3-a456-426614174000"',
        'token = "123e4567-e89b-42d3-a456-426614174000"',
        f'image = "data:image/png;base64,{made(ALNUM + "+/", 3000)}"',
        f'ICON = "{made(ALNUM + "+/", 400)}"',
        'password = os.environ["DB_PASSWORD"]',
        "password = getpass.getpass('Password: ')",
        'password = "password"',
        'password_label = "Enter your password"',
        'api_key = "YOUR_API_KEY"',
        'api_key = "<your key>"',
        'secret = f"{name}_{number}"',
        'url = f"postgres://{user}:{password}@{host}/db"',
        'password = "changeme1"',
        'token = "test-token-1"',
        'client = Client(api_key="dummy-key-1")',
        "self.password = hash_password(password1)",
        'def login(user: str, password: str = "") -> None:',
        "api_key: str = Field(default=None)",
        'secret_name = "my-app/database"',
        'SECRET_PATH = "/run/secrets/db1"',
        'key = "user_id_2"',
        'tokens = ["the", "quick", "brown"]',
        'tokenizer = load("bert-base-uncased")',
        'tokenizer = AutoTokenizer.from_pretrained("meta-llama/Llama-2-7b-chat-hf")',
        'bearer_model = "facebook/opt-350m"',
        'token_url = "https://example.org/oauth2/v1/token"',
        'TOKEN_FIELD = "csrf_token_field_2"',
        'signing_algorithm = "AWS4-HMAC-SHA256"',
        'private_key = load_pem("server1.pem")',
        'cookie = request.cookies["session_token"]',
        "const password = process.env.PASSWORD1",
        'raise ValueError("Basic authentication needs a user and a password")',
        "git show 8c1f2d3e4b5a69788796a5b4c3d2e1f001234567",
        "see https://example.org/a:b@c and mail me@example.org",
    ],
)
def test_what_only_looks_random_or_only_speaks_of_secrets_is_left_alone(text: str) -> None:
    assert secrets_in(text) == {}
    assert secrets_in(text, "python") == {}


def test_the_lines_of_a_private_key_are_masked_however_much_of_it_is_in_the_window() -> None:
    body = [made(ALNUM + "+/", 64, seed) for seed in range(6)]
    whole = ["k = '''-----BEGIN RSA PRIVATE KEY-----", *body, "-----END RSA PRIVATE KEY-----'''", "x = f("]
    for lines in (whole, whole[2:], whole[:-3]):
        masked = mask("\n".join(lines), "", ["1"])
        assert masked.kinds == ("Private Key",)
        assert not [line for line in body if line[:30] in masked.prefix]
        assert "PRIVATE KEY-----" in masked.prefix
    quoted = mask('k = "-----BEGIN PRIVATE KEY-----\\n' + "\\n".join(body) + '\\n"', "", [""])
    assert not [line for line in body if line[:30] in quoted.prefix]
    public = "\n".join(["-----BEGIN PUBLIC KEY-----", *body, "-----END PUBLIC KEY-----"])
    assert secrets_in(public) == {}


def test_a_secret_that_reaches_over_the_cursor_is_masked_on_both_sides() -> None:
    secret = "ghp_" + made(ALNUM, 36)
    masked = mask(f'a = "{secret[:20]}', f'{secret[20:]}"\n', ["", "x"])
    assert (masked.prefix, masked.suffix) == (
        'a = "' + mask(secret, "", [""]).prefix[:20],
        mask(secret, "", [""]).prefix[20:] + '"\n',
    )


def test_one_secret_has_one_placeholder_of_its_form_and_masking_again_changes_nothing() -> None:
    text = 'password = "Ab1-xY22z"\nlogin("Ab1-xY22z")\n'
    once = mask(text, "", [""])
    assert once.prefix == 'password = "Xx0-xX00x"\nlogin("Xx0-xX00x")\n'
    assert mask(once.prefix, "", [""]).prefix == once.prefix


@pytest.mark.parametrize(
    ("prefix", "expected", "suffix"),
    [
        ("key = ", '"ghp_{}"', "\n"),
        ('key = "ghp_', "{}", '"\n'),
        ('password = "', "{}", '"\n'),
        ("password = ", '"{}"', "\n"),
        ('password = "{}"\nlogin(', '"{}"', ")\n"),
    ],
)
def test_what_is_expected_must_hold_no_secret_and_the_remedy_is_named(
    prefix: str, expected: str, suffix: str
) -> None:
    secret = made(ALNUM, 36)
    with pytest.raises(FlagError, match="must not learn\\. Read it from the environment") as told:
        taught(prefix.format(secret), suffix, expected.format(secret), "None")
    assert secret not in str(told.value)
    allowed = f"{expected.format(secret)}  # pragma: allowlist secret"
    if "{}" not in prefix and suffix == "\n":
        assert taught(prefix, suffix, allowed, "None").middles[0] == allowed


def test_what_was_rejected_may_hold_one_and_is_kept_masked() -> None:
    secret = "ghp_" + made(ALNUM, 36)
    masked = taught("login(", ")\n", 'os.environ["TOKEN"]', f'"{secret}"')
    assert masked.middles[0] == 'os.environ["TOKEN"]'
    assert secret not in masked.middles[1]
    assert len(masked.middles[1]) == len(secret) + 2


@given(st.lists(st.text("ab1=:\"' \n;().,-_/+é😀\r\x00", max_size=20), min_size=4, max_size=4), st.data())
def test_any_text_keeps_its_length_and_its_lines(parts: list[str], data: st.DataObject) -> None:
    words = st.sampled_from(["password = ", "://u:p1@h", "AKIA" + "A1" * 8, "token", "eyJ", "-----BEGIN "])
    prefix, suffix, *middles = [part + data.draw(words) + part for part in parts]
    masked = mask(prefix, suffix, middles)
    for before, after in zip(
        (prefix, suffix, *middles), (masked.prefix, masked.suffix, *masked.middles), strict=True
    ):
        assert len(before) == len(after)
        assert [c for c in before if not c.isascii() or not c.isalnum()] == [
            c for c in after if not c.isascii() or not c.isalnum()
        ]


#: Made to have a pattern look again and again; the first three are for the quick part.
LONG_LINES = [
    "eyJ" * 20_000,
    "secret'" * 8_000,
    "-----BEGIN PRIVATE KEY-----" * 2_000,
    "password = " * 6_000,
    "a" * 64_000,
    '"' * 64_000,
    "://a:" * 12_000,
    "//" * 30_000 + ":_authToken=",
    "aws key " * 8_000,
    "sk-" + "a" * 64_000,
    "xoxb-" + "1-" * 30_000,
    "token " * 10_000,
    "bearer " + "." * 64_000,
]


@pytest.mark.parametrize(
    "line",
    [*LONG_LINES[:3], *(pytest.param(line, marks=pytest.mark.process) for line in LONG_LINES[3:])],
    ids=lambda line: line[:12].strip(),
)
def test_no_line_of_64_000_characters_takes_a_second(line: str) -> None:
    secrets_in("warm")
    started = time.process_time()
    mask(line, line[:1000], [""])
    assert time.process_time() - started < 1


def test_our_own_sources_hold_no_secret() -> None:
    """And so what we write every day is not masked."""
    paths = [*(ROOT / "server").rglob("*.py")]
    assert len(paths) > 50
    assert [path.name for path in paths if secrets_in(path.read_text("utf-8"))] == []


def test_cases_of_a_file_are_masked_and_one_that_teaches_a_secret_is_named_by_its_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAR_LSP_HOME", str(tmp_path / "home"))
    secret, file = "ghp_" + made(ALNUM, 36), tmp_path / "cases.jsonl"
    good = {"prefix": f'login("{secret}")\na = ', "expected": "1", "rejected": secret}
    file.write_text(json.dumps(good))
    (written,) = read_cases(str(file))
    assert secret not in "".join((written.prefix, written.rejected))
    assert written.masked == ("GitHub Token",)
    assert "GitHub Token" in written.note
    file.write_text(f"{json.dumps(good)}\n{json.dumps(good | {'expected': secret})}\n")
    ran = run("repair", "--cases", file)
    assert ran.status == 2
    assert "line 2: What is right here holds what looks like a secret" in ran.err
    assert secret not in ran.err


def test_what_was_masked_is_said_where_a_case_is_shown(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAR_LSP_HOME", str(tmp_path / "home"))
    masked = mask('password = "tr0ub4dor&3"\na = ', "", ["1"])
    store = Store(tmp_path / "home" / "data")
    case = store.add_case(prefix=masked.prefix, suffix="", expected="1", rejected="2", note=masked.told)
    store.close()
    shown = run("cases", case.id)
    assert "Masked before it was kept, as it looks like a secret: Password or Key." in shown.out
    assert 'password = "xx0xx0xxx&0"' in shown.out
    assert run("cases", case.id, "--json").json["note"] == masked.told


@pytest.mark.process
def test_the_detectors_are_imported_by_no_start() -> None:
    code = "import star_lsp.app, star_lsp.mask, sys; print({'detect_secrets', 'requests'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_nothing_is_ever_verified_with_a_vendor() -> None:
    """``analyze_line`` would; we read patterns and ask ``analyze_string``."""
    source = (ROOT / "server/star_lsp/mask.py").read_text("utf-8")
    called = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    assert not called & {"analyze_line", "verify", "format_scan_result"}
