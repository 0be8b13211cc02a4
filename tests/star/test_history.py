"""The name of what patches make of a base."""

from star.history import revision


def test_a_revision_names_the_base_and_the_patches_in_their_order() -> None:
    names = {revision("base", digests) for digests in ([], ["a"], ["b"], ["a", "b"], ["b", "a"])}
    assert len(names) == 5
    assert revision("base", ["a"]) == revision("base", ["a"])
    assert revision("other", ["a"]) != revision("base", ["a"])
