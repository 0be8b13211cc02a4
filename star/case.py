"""What a developer wants the model to write, and where the model fails to."""

from dataclasses import dataclass

from star.stop import StopRule

__all__ = ["Case", "Failure"]


@dataclass(frozen=True, slots=True)
class Case:
    """One completion that the model shall write: after ``prompt``, exactly ``expected``."""

    id: str
    #: The very token ids that the server sends: same layout, same truncation.
    prompt: tuple[int, ...]
    #: The text that shall stand there, as the developer would see it.
    expected: str
    #: Where the server ends a suggestion at this place.
    stop: StopRule
    #: Text that stands left of the place and is not in the prompt: what is written begins with it (token
    #: healing), and it is not shown.
    healed: str = ""
    #: Prompts of the same place as other files would have it, where the same shall be written.
    elsewhere: tuple[tuple[int, ...], ...] = ()

    @property
    def written(self) -> str:
        """The text that shall follow the prompt."""
        return self.healed + self.expected


@dataclass(frozen=True, slots=True)
class Failure:
    """One position at which the model does not write what it should.

    ``position`` counts from the first token of the completion; one past the last expected token is
    the end, where the model should have stopped.
    """

    case: str
    position: int
    expected: int
    predicted: int
