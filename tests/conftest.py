"""Every shape and type that ``star`` declares is checked at run time, and one thread is enough."""

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

#: As mypy sees it: an int is a float.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))

# Before any test module imports star: only what is imported afterwards is checked.
install_import_hook("star", f"{__name__}.checked")

import torch  # noqa: E402

torch.set_num_threads(1)
