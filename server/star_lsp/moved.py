"""What a patch file moves: read from its rows alone, with no model and no torch."""

import math
from pathlib import Path

from star_lsp.errors import StoreError
from star_lsp.patch_file import deltas
from star_lsp.protocol import MovedLayer, MovedNeuron

__all__ = ["moved"]

#: Neurons that are named for each layer: those that moved most.
_MOST = 12


def moved(path: Path, width: int = 0) -> list[MovedLayer]:
    """The layers of which a patch moves neurons, in order. It takes a moment: not for the event loop.

    ``width`` is how many neurons a layer of its model has; as many as are known of where it is not known.

    Raises:
        StoreError: the file is gone, or damaged.
    """
    import numpy  # a handler must not wait for it
    from safetensors import SafetensorError

    layers = []
    try:
        for layer, neurons, delta in deltas(path):
            norms = numpy.linalg.norm(delta, axis=1)
            most = [MovedNeuron(int(neurons[row]), float(norms[row])) for row in (-norms).argsort()[:_MOST]]
            norm = math.sqrt(float((norms**2).sum()))
            least = int(neurons.max(initial=-1)) + 1
            layers.append(MovedLayer(layer, len(neurons), max(width, least), norm, most))
    except FileNotFoundError as error:
        raise StoreError(
            f"The file of patch {path.stem} is not there any more ({path}), so what it moved cannot be told; "
            "take it from a backup, or repair its cases again."
        ) from error
    except (OSError, SafetensorError, ValueError, IndexError, KeyError) as error:
        raise StoreError(
            f"The file of patch {path.stem} cannot be read ({path}: {error}); take a good copy of it, or "
            "repair its cases again."
        ) from error
    return layers
