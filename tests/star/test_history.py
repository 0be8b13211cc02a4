"""The name of what patches make of a base."""

from star.history import base_of, earlier_bases, revision


def test_a_revision_names_the_base_and_the_patches_in_their_order() -> None:
    names = {revision("base", digests) for digests in ([], ["a"], ["b"], ["a", "b"], ["b", "a"])}
    assert len(names) == 5
    assert revision("base", ["a"]) == revision("base", ["a"])
    assert revision("other", ["a"]) != revision("base", ["a"])


def test_int8_has_another_name_since_it_means_other_numbers_and_stored_weights_never() -> None:
    names = [base_of("f", "stored"), base_of("f", "int8"), *earlier_bases("f", "int8")]
    assert names[0] == "f"
    assert len(set(names)) == 3
    assert earlier_bases("f", "stored") == []
