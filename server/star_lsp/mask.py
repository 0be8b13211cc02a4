"""What looks like a secret in the texts of a case, and the same texts with placeholders in its place.

The detectors are those of detect-secrets that know a secret by its form, or by the name that it is given to.
Those that only find a text random are asked on lines that speak of tokens: hashes, uuids and images are
random too. Nothing is ever verified with a vendor, which would need a network.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from star_lsp.errors import FlagError

__all__ = ["Masked", "mask", "secrets_in", "taught"]

#: Detectors of detect-secrets that know a secret by its form, by module.
_BY_FORM = {
    "aws": "AWSKeyDetector",
    "azure_storage_key": "AzureStorageKeyDetector",
    "basic_auth": "BasicAuthDetector",
    "cloudant": "CloudantDetector",
    "discord": "DiscordBotTokenDetector",
    "github_token": "GitHubTokenDetector",
    "gitlab_token": "GitLabTokenDetector",
    "ibm_cloud_iam": "IbmCloudIamDetector",
    "ibm_cos_hmac": "IbmCosHmacDetector",
    "mailchimp": "MailchimpDetector",
    "openai": "OpenAIDetector",
    "pypi_token": "PypiTokenDetector",
    "sendgrid": "SendGridDetector",
    "slack": "SlackDetector",
    "softlayer": "SoftlayerDetector",
    "square_oauth": "SquareOAuthDetector",
    "stripe": "StripeDetector",
    "telegram_token": "TelegramBotTokenDetector",
}
#: Keys that name their vendor, and that detect-secrets 1.5 does not know, or finds in quadratic time.
_VENDORS = {
    "GitHub Token": r"github_pat_\w{60,}",
    "Google API Key": r"AIza[\w-]{35}",
    "Google OAuth Secret": r"GOCSPX-[\w-]{28}|ya29\.[\w-]{30,}",
    "Anthropic Key": r"sk-ant-[\w-]{24,}",
    "OpenAI Token": r"sk-(?:proj|svcacct|admin)-[\w-]{24,}",
    "Hugging Face Token": r"hf_[A-Za-z0-9]{34}",
    "DigitalOcean Token": r"do[opr]_v1_[0-9a-f]{64}",
    "Shopify Token": r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",
    "Stripe Access Key": r"(?:[rs]k_test|whsec)_[A-Za-z0-9]{24,}",
    "NPM Token": r"npm_[A-Za-z0-9]{36}|_authToken=\s*([A-Fa-f0-9-]{36})",
    "Slack Token": r"x(?:app|oxe\.xox[bp])-[\w-]{20,}",
    "Vault Token": r"hv[sb]\.[\w-]{24,}",
    "Age Key": r"AGE-SECRET-KEY-1[0-9A-Z]{50,}",
    "Databricks Token": r"dapi[0-9a-f]{32}",
}
#: Where a block of a private key begins and ends; the window of a case may hold one end alone.
_KEY_BEGINS = r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-\d"
_KEY_ENDS = r"-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|Private-MAC: \w+"
_JWT = re.compile(r"eyJ[\w=-]{8,}\.[\w=-]{8,}(?:\.[\w=-]*)?")
#: What is said after these words is a credential when it looks random.
_SPOKEN = re.compile(r"\b(?:bearer|basic|token)[ \t]+([A-Za-z0-9._~+/=-]{16,})", re.IGNORECASE)
#: Names of tokens, which detect-secrets leaves to its detectors of random texts; no tokens of a language.
_OF_TOKENS = re.compile(
    r"token(?!i[sz]|s)|bearer|authorization|credential|access_?key|passphrase|webhook|signing|sas_?url",
    re.IGNORECASE,
)
#: Least entropy of what is quoted there: of 20 random characters or more, and of fewer words.
_ENTROPY = 3.9
#: Names of secrets, and ways to give them a value, that detect-secrets does not know.
_NAMED = re.compile(
    r"(?:password|passwd|passphrase|secret|api_?key|access_?key|(?:auth|api|access|refresh|bearer)_?token)\w*"
    r"['\"\])]{0,2}\s*(?::=|[:=]|=>)\s*['\"]([^'\"\s]{8,})['\"]",
    re.IGNORECASE,
)
#: Languages in which a value needs no quotes.
_UNQUOTED = frozenset(
    {"yaml", "ini", "properties", "toml", "dotenv", "shellscript", "dockerfile", "plaintext", "conf"}
)
#: One of these, or a run of letters and digits, or a long one of letters, is in whatever a detector finds.
_NAMES = re.compile(
    r"key|pass|pwd|pw|secret|contrase|token|bearer|basic|author|credential|webhook|sign|sas", re.IGNORECASE
)
_RUN, _DIGIT, _LONG_RUN = (re.compile(form) for form in (r"[\w+/=.:-]{16}", "[0-9]", r"[\w+/=.:-]{28}"))
_ALLOWED = re.compile(r"pragma: ?(?:allow|white)list[ -]secret", re.IGNORECASE)
#: Values that stand for one that is not there.
_STANDS_FOR = re.compile(
    r"your|example|sample|dummy|placeholder|change.?me|redacted|replace|insert|todo|fake|mock|test|xxx|\*\*\*|"
    r"\.\.\.|1234567|abcdef(?!\d)",
    re.IGNORECASE,
)
#: What a name calls a secret is none when it is spoken, refers to something, or is a path.
_NO_SECRET = re.compile(r"\s|[(){}<>\[\]]|^[$%&@./~]|://")
#: A longer line is read in pieces that overlap: some detectors take quadratic time.
_PIECE, _OVERLAP = 2_000, 300
#: Characters of a secret that only its name tells, and of one that is told within a word, at least.
_LEAST, _LONG = 6, 12


@dataclass(frozen=True, slots=True)
class Masked:
    """Texts of a case, and the kinds of secrets that were masked in them (none for none)."""

    prefix: str
    suffix: str
    #: What may stand between the two.
    middles: tuple[str, ...]
    #: Texts from elsewhere.
    others: tuple[str, ...]
    kinds: tuple[str, ...]

    @property
    def told(self) -> str:
        """What was masked, in a sentence; empty for nothing."""
        told = f"Masked before it was kept, as it looks like a secret: {', '.join(self.kinds)}."
        return told if self.kinds else ""


def mask(
    prefix: str, suffix: str, middles: Sequence[str], others: Sequence[str] = (), language: str = ""
) -> Masked:
    """The texts with every secret that is in any of them masked in all.

    A placeholder has the length of the secret, and a letter or digit of its kind at each place: the texts
    keep their form, and a place that is masked again looks the same.
    """
    detectors = _detectors(unquoted=language in _UNQUOTED)
    wholes = [f"{prefix}{middle}{suffix}" for middle in middles]
    found = detectors.secrets_in((*wholes, *others))
    covered = [_cover(whole, found) for whole in wholes]
    return Masked(
        _joined(prefix, [each[: len(prefix)] for each in covered]),
        _joined(suffix, [each[len(each) - len(suffix) :] for each in covered]),
        tuple(each[len(prefix) : len(each) - len(suffix)] for each in covered),
        tuple(_cover(other, found) for other in others),
        tuple(sorted(set(found.values()))),
    )


def taught(
    prefix: str, suffix: str, expected: str, rejected: str, others: Sequence[str] = (), language: str = ""
) -> Masked:
    """The texts of a case that is to be taught; ``middles`` are what is expected and what was rejected.

    Raises:
        FlagError: what is expected holds a secret, which no model must learn.
    """
    masked = mask(prefix, suffix, (expected, rejected), others, language)
    if masked.middles[0] != expected:
        raise FlagError(
            f"What is right here holds what looks like a secret ({', '.join(masked.kinds)}), which the model "
            "must not learn. Read it from the environment or from a file instead, and flag with that code; "
            "or, when it is none, write `pragma: allowlist secret` on its line."
        )
    return masked


def secrets_in(text: str, language: str = "") -> dict[str, str]:
    """What looks like a secret in a text, and of which kind each is."""
    return _detectors(unquoted=language in _UNQUOTED).secrets_in((text,))


@dataclass(frozen=True, slots=True)
class _Detectors:
    """What is used of detect-secrets, and what is added to it."""

    #: Detectors by form: the kind of secret, and its patterns.
    by_form: tuple[tuple[str, tuple[re.Pattern[str], ...]], ...]
    by_name: Any
    #: The patterns of ``by_name`` that fit the language, None for those of code.
    names: Any
    jwt: Any
    random: tuple[Any, ...]
    heuristic: Any

    def secrets_in(self, texts: Iterable[str]) -> dict[str, str]:
        """What looks like a secret in any of some texts, and of which kind each is."""
        found: dict[str, str] = {}
        for text in texts:
            found |= _private_keys(text)
        for line in {line for text in texts for line in text.splitlines()}:
            if _worth_reading(line):
                for piece in _pieces(line):
                    found |= self._of_form(piece)
                    found |= self._of_name(piece)
        return found

    def _of_form(self, line: str) -> Iterator[tuple[str, str]]:
        """What is known by its form, whatever it is called."""
        for kind, patterns in self.by_form:
            for pattern in patterns:
                for match in pattern.finditer(line):
                    value = _in_match(match)
                    if not self.heuristic.is_templated_secret(value) and not value.startswith("$"):
                        yield value, kind
        for match in _JWT.finditer(line):
            if self.jwt.is_formally_valid(".".join(match[0].split(".")[:2])):
                yield match[0], "JSON Web Token"
        for match in _SPOKEN.finditer(line):
            if self._is_random(match[1]):
                yield match[1], "Authorization"

    def _of_name(self, line: str) -> Iterator[tuple[str, str]]:
        """What a name says to be a secret, when it looks like one."""
        for value in (*self._named(line), *(match[1] for match in _NAMED.finditer(line))):
            if self._is_secret(value):
                yield value, "Password or Key"
        if _OF_TOKENS.search(line):
            for plugin in self.random:
                for value in plugin.analyze_string(line):
                    entropy = plugin.calculate_shannon_entropy(value)
                    if entropy > plugin.entropy_limit and self._is_random(value):
                        yield value, "Token"

    def _named(self, line: str) -> Iterator[str]:
        """Every value that the detector of names finds; it tells the first of each form only."""
        while line:
            found = [value.strip() for value in self.by_name.analyze_string(line, self.names)]
            found = [value for value in found if value]
            if not found:
                return
            yield from found
            line = line[max(line.find(value) + len(value) for value in found) :]

    def _is_secret(self, value: str) -> bool:
        """Whether what has a secret's name looks like one: no words, no reference, no path, no stand-in."""
        if len(value) < _LEAST or _NO_SECRET.search(value) or not re.search("[A-Za-z]", value):
            return False
        return re.search(r"[0-9]|[^\w.:/-]", value) is not None and not self._is_stand_in(value)

    def _is_random(self, value: str) -> bool:
        """Whether a value looks random rather than spoken."""
        mixed = re.search("[A-Za-z]", value) and re.search("[0-9]", value)
        return mixed is not None and not self._is_stand_in(value)

    def _is_stand_in(self, value: str) -> bool:
        """Whether a value stands for one that is not there, or names a thing."""
        known = self.heuristic.is_sequential_string(value) or self.heuristic.is_potential_uuid(value)
        return bool(known) or _STANDS_FOR.search(value) is not None


def _detectors(unquoted: bool) -> _Detectors:
    """Imported here: it takes a quarter of a second, for which no start shall wait."""
    plugins = "detect_secrets.plugins"
    keyword, entropy = (import_module(f"{plugins}.{name}") for name in ("keyword", "high_entropy_strings"))
    theirs = [getattr(import_module(f"{plugins}.{name}"), kind) for name, kind in _BY_FORM.items()]
    ours = [(kind, (re.compile(rf"(?<![\w-])(?:{form})"),)) for kind, form in _VENDORS.items()]
    return _Detectors(
        (*((each.secret_type, tuple(each.denylist)) for each in theirs), *ours),
        keyword.KeywordDetector(),
        keyword.CONFIG_DENYLIST_REGEX_TO_GROUP if unquoted else None,
        import_module(f"{plugins}.jwt").JwtTokenDetector(),
        (entropy.Base64HighEntropyString(_ENTROPY), entropy.HexHighEntropyString()),
        import_module("detect_secrets.filters.heuristic"),
    )


def _private_keys(text: str) -> Iterator[tuple[str, str]]:
    """The lines of private keys, between those that say where one begins and ends."""
    begun = [match.end() for match in re.finditer(_KEY_BEGINS, text)]
    ended = [match.start() for match in re.finditer(_KEY_ENDS, text)]
    ends = sorted([*ended, *begun[1:], len(text)])
    bodies = [(after, ends[bisect_right(ends, after)] if after < len(text) else after) for after in begun]
    if ended and ended[0] < min(begun, default=len(text)):
        bodies.append((0, ended[0]))
    for start, stop in bodies:
        for line in re.findall(r"[A-Za-z0-9+/=]{20,}", text[start:stop]):
            yield line, "Private Key"


def _worth_reading(line: str) -> bool:
    """Whether any detector might find something in a line; they are slow, and few lines hold anything."""
    named = _NAMES.search(line) or "://" in line
    return bool(
        named or _LONG_RUN.search(line) or (_RUN.search(line) and _DIGIT.search(line))
    ) and not _ALLOWED.search(line)


def _pieces(line: str) -> Iterator[str]:
    for start in range(0, max(len(line) - _OVERLAP, 1), _PIECE - _OVERLAP):
        yield line[start : start + _PIECE]


def _in_match(match: re.Match[str]) -> str:
    """The secret in what a detector found: its longest group, else all of it, as far as the word goes.

    A group at the very start is only the vendor's prefix of a key.
    """
    groups = [
        match[number] or ""
        for number in range(1, len(match.groups()) + 1)
        if match.start(number) > match.start()
    ]
    if groups:
        return max(groups, key=len)
    rest = re.compile(r"[\w+/=-]*").match(match.string, match.end())
    return match[0] + (rest[0] if rest else "")


def _cover(text: str, found: Iterable[str]) -> str:
    """A text with a placeholder over every secret in it; a short one within a word is none."""
    for value in sorted(found, key=len, reverse=True):
        if value in text:
            form = re.escape(value) if len(value) >= _LONG else rf"(?<!\w){re.escape(value)}(?!\w)"
            text = re.sub(form, _placeholder(value), text)
    return text


def _placeholder(value: str) -> str:
    return re.sub("[a-z]", "x", re.sub("[A-Z]", "X", re.sub("[0-9]", "0", value)))


def _joined(text: str, covered: Sequence[str]) -> str:
    """A text with everything covered that is so in any of its copies."""
    return "".join(
        next((new for new in news if new != old), old) for old, *news in zip(text, *covered, strict=True)
    )
