"""Every setting once: its name, default, bounds and meaning.

package.json and the README repeat them, and tests hold those equal to what stands here. A bad value never
stops the server: its default is used, and all that is wrong is told at once.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, NamedTuple

__all__ = [
    "CompletionSettings",
    "Documented",
    "FeedbackSettings",
    "GateSettings",
    "LogSettings",
    "Problem",
    "RepairSettings",
    "Settings",
    "documentation",
    "read",
    "schema",
]

SECTIONS = ("star-lsp", "starLsp")
OF_CLIENTS = ("trace", "server", "editor")  # settings of the VS Code extension itself, in the same section

#: Names of no setting that are told one by one, and how much of a name.
_MOST_UNKNOWN, _LONGEST_NAME = 20, 100
#: Strings in a list, and characters in each: they are looked at with every key that is typed.
_MOST_STRINGS, _LONGEST_STRING = 500, 500

SECRETS = (
    # Keys and certificates with keys in them.
    "**/*.{pem,key,p8,p12,pfx,pkcs12,jks,keystore,bks,ppk,kdb,kdbx,gpg,asc,agekey,keytab,ovpn}",
    "**/{id_rsa,id_dsa,id_ecdsa,id_ed25519,ssh_host_}*",
    # What is named after what it holds.
    "**/{.env*,*.env}",
    "**/{credentials*,.credentials*,*credentials.json,*-credentials.*,*_credentials.*}",
    "**/{secret,secrets,*-secret,*-secrets,*_secrets,*.secrets}.*",
    "**/{secret,secrets,.secrets}/**",
    "**/{.htpasswd,.htdigest,.netrc,_netrc,.pgpass,pgpass.conf,.my.cnf,.mylogin.cnf}",
    "**/{.git-credentials,.npmrc,.yarnrc.yml,.pypirc,.terraformrc,terraform.rc,.dockercfg,.dockerconfigjson}",
    "**/{.s3cfg,.boto,rclone.conf,.vault-token,.vault_pass*,auth.json,token.json,wp-config.php}",
    "/etc/{,g}shadow*",
    "**/*{.tfstate,.tfstate.*,.tfvars,.tfvars.json}",
    "**/{*service?account*,*serviceaccount*,*firebase-adminsdk*,client_secret*}.json",
    "**/{kubeconfig*,*.kubeconfig}",
    # Folders of programs that keep credentials.
    "**/{.aws,.azure,.ssh,.gnupg,.kube,.oci,.password-store}/**",
    "**/.docker/config.json",
    "**/.config/{gcloud,gh,hub,op}/**",
    "**/.git/config",
    "**/.m2/settings*.xml",
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the settings, in a sentence that says what is used instead."""

    name: str
    message: str


class Documented(NamedTuple):
    """A setting as the README and package.json show it; the default as JSON has it."""

    name: str
    type: str
    default: Any
    doc: str


def setting(default: Any, doc: str, **bounds: Any) -> Any:
    """A field with its meaning and bounds: ``minimum``, ``maximum``, ``enum`` or ``pattern``."""
    return field(default=default, metadata={"doc": doc, "bounds": bounds})


@dataclass(frozen=True, slots=True)
class CompletionSettings:
    """When and how completions are made."""

    enabled: bool = setting(True, "Whether completions are offered at all.")
    max_tokens: int = setting(64, "Most tokens that one completion may have.", minimum=1, maximum=512)
    prefix_tokens: int = setting(
        1024, "Most tokens of the text left of the cursor that the model reads.", minimum=16, maximum=16_384
    )
    suffix_tokens: int = setting(
        256, "Most tokens of the text right of the cursor that the model reads.", minimum=0, maximum=8_192
    )
    latency: str = setting(
        "eager",
        "How much is done for early suggestions: eager shows the whole lines of one that takes long, and "
        "reads and writes ahead of what is asked for, balanced does only what is asked for, frugal no more "
        "than 24 tokens of it.",
        enum=("eager", "balanced", "frugal"),
    )
    languages: dict[str, bool] = field(
        default_factory=lambda: {"*": True},
        metadata={
            "doc": 'Languages, by their editor id, in which completions are offered; "*" is all others.',
            "bounds": {},
        },
    )
    exclude: tuple[str, ...] = setting(
        SECRETS, "Globs of files in which no completion is offered and of which nothing is read or kept."
    )
    time_budget_milliseconds: int = setting(
        30_000,
        "Time after which a completion ends with what it has so far, in milliseconds.",
        minimum=50,
        maximum=120_000,
    )


@dataclass(frozen=True, slots=True)
class RepairSettings:
    """When and how strongly the model is repaired."""

    schedule: str = setting(
        "at once",
        "When a flagged case is repaired: at once, when the editor has been idle, or when asked to.",
        enum=("at once", "idle", "manual"),
    )
    strength: str = setting(
        "normal",
        "How much of the model a repair may change: gentle changes less and fails more often.",
        enum=("gentle", "normal", "strong"),
    )
    method: str = setting(
        "ours",
        "How the model is repaired: ours, or star, which is STAR as published: ten steps, and no margin.",
        enum=("ours", "star"),
    )
    max_steps: int = setting(16, "Most steps that one repair may take.", minimum=1, maximum=256)
    max_seconds: int = setting(
        120,
        "Most seconds that a repair may take for each of its cases, what the gate checks not counted.",
        minimum=1,
        maximum=3_600,
    )


@dataclass(frozen=True, slots=True)
class GateSettings:
    """What a repair must leave as it was."""

    sample_size: int = setting(
        16, "Most accepted completions that are checked before a repair goes live.", minimum=0, maximum=256
    )
    max_kl: float = setting(
        0.05,
        "Most that predictions on the checked completions may move, as mean KL divergence in nats.",
        minimum=0.0,
        maximum=100.0,
    )
    min_unchanged: float = setting(
        0.95, "Least share of the checked completions that must stay as they were.", minimum=0.0, maximum=1.0
    )


@dataclass(frozen=True, slots=True)
class FeedbackSettings:
    """What is kept of completions."""

    keep_accepted: bool = setting(
        True, "Whether accepted completions are kept on this machine, to check repairs against."
    )
    kept_completions: int = setting(
        200, "Most accepted completions that are kept; the oldest go first.", minimum=0, maximum=10_000
    )


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is written to the log."""

    level: str = setting(
        "info",
        "How much is written to the log; code appears in it at debug only.",
        enum=("error", "warning", "info", "debug"),
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings."""

    model: str = setting(
        "qwen2.5-coder-0.5b",
        "Name of the model, one of those that `star-lsp model list` shows.",
        pattern=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    )
    auto_pull: bool = setting(True, "Whether a model that is not on this machine yet is downloaded unasked.")
    keep_alive_seconds: int = setting(
        300,
        "Time that the server, which all editors share, stays after the last one has left, in seconds.",
        minimum=0,
        maximum=604_800,
    )
    completion: CompletionSettings = field(default_factory=CompletionSettings)
    repair: RepairSettings = field(default_factory=RepairSettings)
    gate: GateSettings = field(default_factory=GateSettings)
    feedback: FeedbackSettings = field(default_factory=FeedbackSettings)
    log: LogSettings = field(default_factory=LogSettings)


def read(raw: object) -> tuple[Settings, list[Problem]]:
    """The settings that ``raw`` asks for, and everything that is wrong with it.

    ``raw`` is what a client sent: nested objects or dotted names, by themselves or under ``star-lsp`` or
    ``starLsp``, beside which the sections of others are passed over. Null leaves a setting at its default.
    """
    problems: list[Problem] = []
    known = {name: (owner, item) for name, owner, item in _settings()}
    given: dict[str, Any] = {}
    for name, value in _flat(raw, set(known), problems):
        owner, item = known[name]
        expected = _default(item)
        reason, good = _checked(value, expected, item.metadata["bounds"])
        if reason:
            shown = _shown(_as_json(expected))
            problems.append(Problem(name, f"Setting {name} {reason}; {shown} is used until you change it."))
        else:
            given[f"{owner}.{item.name}"] = good
    settings = Settings()
    for path, value in given.items():
        group, _, attribute = path.rpartition(".")
        if group:
            value = replace(getattr(settings, group), **{attribute: value})
        settings = replace(settings, **{group or attribute: value})
    return settings, problems


def documentation() -> list[Documented]:
    """All settings in the order of the README, without the section's name."""
    return [
        Documented(name, entry["type"], entry["default"], entry["description"])
        for name, entry in schema().items()
    ]


def schema() -> dict[str, dict[str, Any]]:
    """The JSON schema of every setting by name, as ``contributes.configuration`` of package.json has it."""
    entries: dict[str, dict[str, Any]] = {}
    for name, _, item in _settings():
        default = _as_json(_default(item))
        entry = {"type": _TYPES[type(default)], "default": default, "description": item.metadata["doc"]}
        bounds = {key: _as_json(value) for key, value in item.metadata["bounds"].items()}
        if "pattern" in bounds:
            bounds["pattern"] = f"^{bounds['pattern']}$"
        if entry["type"] == "array":
            entry["items"] = {"type": "string"}
        if entry["type"] == "object":
            entry["additionalProperties"] = {"type": "boolean"}
        entries[name] = entry | bounds
    return entries


_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


def _settings() -> Iterator[tuple[str, str, "Field[Any]"]]:
    """Each setting's name on the wire, the group it is in (empty for none), and its field."""
    defaults = Settings()
    for item in fields(Settings):
        group = getattr(defaults, item.name)
        if not is_dataclass(group):
            yield _camel(item.name), "", item
            continue
        for inner in fields(group):
            yield f"{_camel(item.name)}.{_camel(inner.name)}", item.name, inner


def _default(item: "Field[Any]") -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def _flat(
    raw: object, names: set[str], problems: list[Problem], outer: bool = True
) -> Iterator[tuple[str, Any]]:
    """The settings in ``raw`` by dotted name; the later of two of the same name wins when read."""
    unknown = 0
    if raw is None or raw == []:  # Lua writes an empty object so
        return
    if not isinstance(raw, Mapping):
        said = (
            f"The settings must be an object, not {_shown(raw)}; all defaults are used until you change it."
        )
        problems.append(Problem("", said))
        return
    own = [section for section in SECTIONS if section in raw] if outer else []
    if own:
        for section in own:
            yield from _flat(raw[section], names, problems, outer=False)
        return
    groups = {name.split(".")[0] for name in names if "." in name}

    def walk(values: Mapping[Any, Any], above: str) -> Iterator[tuple[str, Any]]:
        for key, value in values.items():
            name = f"{above}{key}"
            for section in SECTIONS if not above else ():
                name = name.removeprefix(f"{section}.")
            if value is None or name.split(".")[0] in OF_CLIENTS:
                continue
            if name in names:
                yield name, value
            elif name in groups and isinstance(value, Mapping):
                yield from walk(value, f"{name}.")
            elif name in groups and value != []:
                said = f"Setting {name} must be an object, not {_shown(value)}; its defaults are used."
                problems.append(Problem(name, said))
            elif name not in groups:
                nonlocal unknown
                unknown += 1
                if unknown <= _MOST_UNKNOWN:
                    short = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
                    nearest = _nearest(short, names | groups)
                    problems.append(Problem(short, f"There is no setting {short}; {nearest}"))

    yield from walk(raw, "")
    if unknown > _MOST_UNKNOWN:
        said = f"There are {unknown - _MOST_UNKNOWN} more names that are of no setting; remove them."
        problems.append(Problem("", said))


def _nearest(name: str, names: set[str]) -> str:
    ends = {full.rpartition(".")[2].lower(): full for full in sorted(names)}
    by_lower = {full.lower(): full for full in names}
    near = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.75)
    if near:
        return f"did you mean {by_lower[near[0]]}?"
    near = get_close_matches(name.rpartition(".")[2].lower(), ends, n=1, cutoff=0.8)
    return f"did you mean {ends[near[0]]}?" if near else "remove it."


def _checked(value: Any, expected: Any, bounds: Mapping[str, Any]) -> tuple[str, Any]:
    """Why ``value`` cannot stand for ``expected`` (empty when it can), and the value in our type."""
    reason, good = _CHECKS[type(expected)](value)
    if reason:
        return f"must be {reason}, not {_shown(value)}", None
    least, most = bounds.get("minimum"), bounds.get("maximum")
    if least is not None and not least <= good <= most:
        return f"must be from {least} to {most}, not {_shown(value)}", None
    if "enum" in bounds and good not in bounds["enum"]:
        allowed = ", ".join(f'"{choice}"' for choice in bounds["enum"])
        return f"must be one of {allowed}, not {_shown(value)}", None
    if "pattern" in bounds and not re.fullmatch(bounds["pattern"], good):
        said = "must be a plain name (a path is imported first: `star-lsp model import PATH`)"
        return f"{said}, not {_shown(value)}", None
    return "", good


def _boolean(value: Any) -> tuple[str, Any]:
    return ("", value) if isinstance(value, bool) else ("true or false", None)


def _integer(value: Any) -> tuple[str, Any]:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # some clients write every number with a point
    return ("", value) if isinstance(value, int) and not isinstance(value, bool) else ("a whole number", None)


def _number(value: Any) -> tuple[str, Any]:
    try:
        good = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # JSON knows whole numbers that no float can hold
        good = False
    return ("", float(value)) if good else ("a number", None)


def _string(value: Any) -> tuple[str, Any]:
    return ("", value) if isinstance(value, str) else ("a string", None)


def _strings(value: Any) -> tuple[str, Any]:
    good = value == {} or (isinstance(value, list | tuple) and all(isinstance(item, str) for item in value))
    if good and (len(value) > _MOST_STRINGS or any(len(item) > _LONGEST_STRING for item in value)):
        return f"at most {_MOST_STRINGS} strings of {_LONGEST_STRING} characters", None
    return ("", tuple(value)) if good else ("a list of strings", None)


def _flags(value: Any) -> tuple[str, Any]:
    if value == []:
        return "", {}
    if isinstance(value, Mapping) and len(value) > _MOST_STRINGS:
        return f"an object of at most {_MOST_STRINGS} names", None
    good = isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(flag, bool) for key, flag in value.items()
    )
    return ("", dict(value)) if good else ("an object of true and false", None)


_CHECKS: Mapping[type, Callable[[Any], tuple[str, Any]]] = {
    bool: _boolean,
    int: _integer,
    float: _number,
    str: _string,
    tuple: _strings,
    dict: _flags,
}


def _camel(name: str) -> str:
    return re.sub("_([a-z])", lambda match: match.group(1).upper(), name)


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."
