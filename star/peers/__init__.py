"""The methods that STAR is measured against, each behind the call of ``star.repair.repair``.

Every one is a frozen dataclass of settings that is called with a model, cases and a budget. None
knows of another; what they share is ``course``.
"""

from star.peers.closed_form import ClosedForm
from star.peers.course import Where, layers_at
from star.peers.gradient import Gradient
from star.peers.lora import Lora
from star.peers.mint import Mint
from star.peers.ordinary import inverse, null_space, second_moment

__all__ = [
    "ClosedForm",
    "Gradient",
    "Lora",
    "Mint",
    "Where",
    "inverse",
    "layers_at",
    "null_space",
    "second_moment",
]
