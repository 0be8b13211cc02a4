"""From text to token ids."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from star_lsp.prompt import CHARACTERS_PER_TOKEN, MARKS, Layout, Limits, Marks, build, layout_of, window

QWEN = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
REAL = Path(os.environ.get("STAR_TEST_TOKENIZER", ""))  # a tokenizer.json, to try a real one
TEXT = st.text(alphabet="ab1_ ()\t\r\n\x0cé😀\ud83d\ude00<|fim_prefix|>", max_size=200)
LIMITS = st.builds(Limits, st.integers(0, 40), st.integers(0, 40))


def toy(text: str) -> list[int]:
    """Words, runs of blanks that may reach over a line's end, and bytes."""
    ids: list[int] = []
    for piece in re.findall(r"\w{1,3}|\s+|.", text):
        ids += [100 + byte for byte in piece.encode()] if len(piece) == 1 else [1000 + ord(piece[0])]
    return ids


def layout_for(marks: Marks) -> Layout:
    names = [*marks.order, *marks.stops, *filter(None, [marks.told_by])]
    ids = {name: number for number, name in enumerate(dict.fromkeys(names), 1)}
    layout = layout_of(ids.get)
    assert layout is not None
    return layout


def qwen() -> Layout:
    layout = layout_of({name: number for number, name in enumerate((*QWEN, "<|endoftext|>"), 1)}.get)
    assert layout is not None
    return layout


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The default model's tokenizer where it is at hand, or else a small one of the same kind."""
    if REAL.is_file():
        found = Tokenizer.from_file(str(REAL))
    else:
        found = Tokenizer(models.BPE())
        found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        found.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=[*QWEN, "<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        found.train_from_iterator([Path(__file__).read_text(encoding="utf-8")] * 4, trainer)
    found.encode_special_tokens = True
    return found


def encoder(tokenizer: Tokenizer) -> Callable[[str], Sequence[int]]:
    def encode(text: str) -> Sequence[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    return encode


@pytest.mark.parametrize("marks", MARKS, ids=lambda marks: marks.name)
def test_every_layout_is_told_by_its_tokens(marks: Marks) -> None:
    layout = layout_for(marks)
    assert layout.name == marks.name
    assert {layout.prefix_id, layout.suffix_id} <= layout.stop_ids


def test_a_tokenizer_without_such_tokens_has_no_layout() -> None:
    assert layout_of({"<|endoftext|>": 0, "<repo_name>": 1, "<|fim_prefix|>": 2}.get) is None


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("Qwen", ["<|fim_prefix|>", "A", "<|fim_suffix|>", "B", "<|fim_middle|>"]),
        ("StarCoder", ["<fim_prefix>", "A", "<fim_suffix>", "B", "<fim_middle>"]),
        ("SantaCoder", ["<fim-prefix>", "A", "<fim-suffix>", "B", "<fim-middle>"]),
        ("CodeGemma", ["<|fim_prefix|>", "A", "<|fim_suffix|>", "B", "<|fim_middle|>"]),
        ("CodeLlama", ["▁<PRE>", "A", "▁<SUF>", "B", "▁<MID>"]),
        ("DeepSeek-Coder", ["<｜fim▁begin｜>", "A", "<｜fim▁hole｜>", "B", "<｜fim▁end｜>"]),
        ("Codestral", ["[SUFFIX]", "B", "[PREFIX]", "A"]),
    ],
)
def test_a_prompt_has_its_parts_in_the_order_of_its_model(name: str, order: list[str]) -> None:
    (marks,) = (marks for marks in MARKS if marks.name == name)
    ids = {part: 1000 + number for number, part in enumerate(order)}
    if marks.told_by:
        ids[marks.told_by] = 5
    layout = layout_of(ids.get)
    prompt = build(lambda text: [ids[text]], layout, "A", "B", Limits(), [7])
    if marks.typed_last:  # there it comes last, and its last token is left to the model
        order = [part for part in order if part != "A"]
    assert list(prompt.ids) == [7, *(ids[part] for part in order)], "behind what begins every text"


def test_what_is_typed_stands_last_so_that_typing_only_adds_to_the_prompt(tokenizer: Tokenizer) -> None:
    encode, layout = encoder(tokenizer), layout_of(tokenizer.token_to_id)
    above, below = "import os\n\n\n\ndef f(x):\n", "\n\nprint(f(1))\n"
    typed = "    y = os.path.join(x, \n    return y"
    ends = range(len(typed) + 1)
    prompts = [build(encode, layout, above + typed[:end], below, Limits()).ids for end in ends]
    for shorter, longer in pairwise(prompts):
        same = next((i for i, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b), None)
        assert same is None or same >= len(shorter) - 3  # the last tokens may be spelt anew


def test_the_cut_between_what_stands_above_and_what_is_typed_moves_with_every_fourth_line() -> None:
    cuts = set()
    for count in range(1, 41):
        ids = build(toy, qwen(), "a\n" * count + "b = ", "\n", Limits()).ids
        above = ids[1 : ids.index(qwen().suffix_id)]
        assert count - 4 <= above.count(toy("a")[0]) < count
        cuts.add(len(above))
    assert len(cuts) == 10


def test_the_token_before_the_cursor_is_left_to_the_model_to_write_anew(tokenizer: Tokenizer) -> None:
    encode, layout = encoder(tokenizer), layout_of(tokenizer.token_to_id)
    for prefix in ("def f(x):\n    y = ", "def f(x):\n    retu", "x", "é = 😀"):
        for fim in (layout, None):
            prompt = build(encode, fim, prefix, "\n", Limits())
            assert prefix.endswith(prompt.healed)
            typed = encode(prefix)
            if prompt.healed and len(typed) > 1:
                assert list(prompt.ids[-len(typed) + 1 :]) == typed[:-1]


def test_where_the_prefix_begins_stays_while_a_line_is_typed() -> None:
    lines = "".join(f"line {number}\n" for number in range(2000))
    typed = [build(toy, qwen(), lines + "ab " * size, "\n", Limits(256, 8)).prefix for size in range(40)]
    begins = {prefix.split("\n")[0] for prefix in typed}
    assert 1 < len(begins) <= 5


def test_without_a_layout_the_model_reads_from_left_to_right() -> None:
    prompt = build(toy, None, "abc ab\n", "cd", Limits())
    assert (prompt.ids, prompt.healed) == (tuple(toy("abc ab")), "\n")
    assert (prompt.prefix, prompt.suffix) == ("abc ab\n", "cd")


def test_a_prompt_is_never_empty_for_healing() -> None:
    assert build(toy, None, "ab", "", Limits()).ids == tuple(toy("ab"))


def test_where_a_token_begins_every_text_it_stands_before_text_alone() -> None:
    for text in ("ab", "abc ab"):
        plain = build(toy, None, text, "", Limits())
        begun = build(toy, None, text, "", Limits(), [7])
        assert (begun.ids, begun.healed) == ((7, *plain.ids), plain.healed)
    assert build(toy, None, "", "", Limits(), [7]).ids == ()


@given(TEXT, TEXT, LIMITS)
def test_building_from_what_was_used_gives_the_same_ids(prefix: str, suffix: str, limits: Limits) -> None:
    for layout in (qwen(), None):
        prompt = build(toy, layout, prefix, suffix, limits)
        assert build(toy, layout, prompt.prefix, prompt.suffix, limits) == prompt
        assert len(prompt.ids) <= limits.prefix_tokens + limits.suffix_tokens + 3
        assert "\r\n" not in prompt.prefix + "." + prompt.suffix
        (prompt.prefix + prompt.suffix).encode("utf-8")


@given(prefix=TEXT, suffix=TEXT, limits=LIMITS)
@settings(max_examples=settings.default.max_examples * 6 // 10, deadline=None)
def test_a_real_tokenizer_gives_the_same_ids_again(
    tokenizer: Tokenizer, prefix: str, suffix: str, limits: Limits
) -> None:
    encode, layout = encoder(tokenizer), layout_of(tokenizer.token_to_id)
    prompt = build(encode, layout, prefix, suffix, limits)
    assert build(encode, layout, prompt.prefix, prompt.suffix, limits) == prompt


def test_a_long_prefix_is_cut_at_the_start_of_a_line_and_a_long_suffix_at_the_end_of_one() -> None:
    lines = "".join(f"line {number}\n" for number in range(2000))
    prompt = build(toy, qwen(), lines + "  here", "\n" + lines, Limits(60, 30))
    assert (lines + "  here").endswith("\n" + prompt.prefix)
    assert ("\n" + lines).startswith(prompt.suffix)
    assert prompt.suffix.endswith("\n")
    assert 45 < len(toy(prompt.prefix)) <= 60
    assert 20 < len(toy(prompt.suffix)) <= 30


@pytest.mark.parametrize("ending", ["", "\n"])
def test_a_line_too_long_is_cut_within_it_on_a_character(ending: str) -> None:
    line = "é😀" * 50_000 + ending
    prompt = build(toy, qwen(), line, line, Limits(60, 30))
    assert line.endswith(prompt.prefix)
    assert line.startswith(prompt.suffix)
    assert 50 < len(toy(prompt.prefix)) <= 60
    assert 20 < len(toy(prompt.suffix)) <= 30


@given(TEXT, TEXT, LIMITS)
def test_a_window_is_part_of_the_text_and_a_window_of_it_the_same(
    prefix: str, suffix: str, limits: Limits
) -> None:
    prefix, suffix = window(prefix, suffix, Limits(10_000, 10_000))
    left, right = window(prefix, suffix, limits)
    assert prefix.endswith(left)
    assert suffix.startswith(right)
    assert window(left, right, limits) == (left, right)
    assert len(left) <= limits.prefix_tokens * CHARACTERS_PER_TOKEN


def test_line_ends_and_broken_characters_are_mended_for_the_model() -> None:
    prompt = build(toy, qwen(), "a\r\nb\rc\ud83d", "\ude00\ud83d\ude00\r\n", Limits())
    assert prompt.prefix == "a\nb\rc\N{REPLACEMENT CHARACTER}"
    assert prompt.suffix == "\N{REPLACEMENT CHARACTER}😀\n"


def test_a_document_of_megabytes_costs_little(tokenizer: Tokenizer) -> None:
    document = "    value = compute(first, second)  # why\n" * 130_000
    encode, layout = encoder(tokenizer), layout_of(tokenizer.token_to_id)
    started = perf_counter()
    prompt = build(encode, layout, document + "    x = ", document, Limits())
    assert perf_counter() - started < 2
    assert 1000 < len(prompt.ids) <= 1024 + 256 + 3


def test_no_tensor_library_is_imported_for_a_prompt() -> None:
    code = "import sys, star_lsp.prompt; assert not {'torch', 'transformers'} & set(sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
