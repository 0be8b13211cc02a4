"""Clients take turns on one model, and nothing passes what changes it."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from star_lsp.turns import Turns


def order(*asked: tuple[str, str | None]) -> list[str]:
    """The names of what was asked, in the order in which it is done."""
    turns, done = Turns(), []
    for name, client in asked:
        turns.put(lambda name=name: done.append(name), client)  # type: ignore[misc]
    while not turns.empty():
        turns.get()()
    return done


def test_one_client_is_answered_in_the_order_in_which_it_asks() -> None:
    assert order(("1", "a"), ("2", "a"), ("3", "a")) == ["1", "2", "3"]


def test_a_client_that_asks_once_does_not_wait_for_all_that_another_has_asked_before() -> None:
    flood = [(f"a{number}", "a") for number in range(50)]
    assert order(*flood, ("b", "b"))[:3] == ["a0", "b", "a1"]


def test_what_was_asked_before_a_swap_is_done_before_it_and_what_came_later_after_it() -> None:
    asked = [("a1", "a"), ("a2", "a"), ("b1", "b"), ("swap", None), ("c1", "c"), ("a3", "a")]
    assert order(*asked) == ["a1", "b1", "a2", "swap", "c1", "a3"]


def test_requests_that_were_taken_back_take_no_turn() -> None:
    turns, done = Turns(), []
    for number in range(5):
        turns.put(lambda number=number: done.append(f"a{number}"), "a", lambda number=number: number < 4)  # type: ignore[misc]
    for client in "bcd":
        for number in range(2):
            turns.put(lambda name=f"{client}{number}": done.append(name), client)  # type: ignore[misc]
    while len(done) < 11:
        turns.get()()
    waited_for = [name for name in done if name not in ("a0", "a1", "a2", "a3")]
    assert waited_for[:4] == ["a4", "b0", "c0", "d0"]


def test_what_nobody_waits_for_comes_last_takes_no_turn_and_keeps_nobody_waiting() -> None:
    turns, done = Turns(), []
    turns.put(lambda: done.append("ahead"), "a", spare=True)
    assert turns.empty()
    turns.put(lambda: done.append("b"), "b")
    turns.put(lambda: done.append("a"), "a")
    assert not turns.empty()
    for _ in range(3):
        turns.get()()
    assert done == ["b", "a", "ahead"]


def test_get_waits_until_there_is_something() -> None:
    turns, done = Turns(), threading.Event()
    thread = threading.Thread(target=lambda: turns.get()(), daemon=True)
    thread.start()
    turns.put(done.set, "a")
    assert done.wait(5)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers())))
def test_nothing_is_lost_and_each_clients_own_order_and_all_swaps_stay(
    asked: list[tuple[str | None, int]],
) -> None:
    turns, done = Turns(), []
    for place, (client, _) in enumerate(asked):
        turns.put(lambda place=place: done.append(place), client)  # type: ignore[misc]
    while not turns.empty():
        turns.get()()
    assert sorted(done) == list(range(len(asked)))
    for client in ("a", "b", "c"):
        mine = [place for place in done if asked[place][0] == client]
        assert mine == sorted(mine)
    for at, place in enumerate(done):
        if asked[place][0] is None:
            assert all(other < place for other in done[:at])


@given(st.integers(1, 300))
def test_however_many_clients_there_were_memory_of_them_is_bounded(count: int) -> None:
    turns = Turns()
    for number in range(count):
        turns.put(lambda: None, str(number))
        turns.get()
    assert len(turns._served) <= 256
