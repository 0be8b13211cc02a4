"""Memory that is the system's again as soon as it is let go."""

import psutil
import pytest
import torch

from star.room import mapped


@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 1, 128, 8), (0, 7), (4, 0)])
def test_it_is_zeros_of_the_asked_shape_to_be_written_to(shape: tuple[int, ...]) -> None:
    made = mapped(*shape)
    assert torch.equal(made, torch.zeros(shape))
    assert torch.equal(made.add_(1.5), torch.full(shape, 1.5))


def test_it_takes_memory_when_it_is_written_to_and_none_once_it_is_let_go() -> None:
    size = 64 << 20
    process = psutil.Process()
    before = process.memory_info().rss
    made = mapped(size // 4)
    assert process.memory_info().rss - before < size / 4
    made.fill_(1.0)
    part = made[:10]
    del made
    assert process.memory_info().rss - before > size / 2
    del part
    assert process.memory_info().rss - before < size / 4
