"""What the server can refuse, as one tree; ``app.py`` turns it into LSP errors, ``cli`` into exit status 2.

    ServerError            the request was refused, and nothing was changed
    ├── CatalogueError     a model cannot be had, read or kept
    ├── SettingsError      a setting is unknown or out of range
    ├── FlagError          a completion cannot be flagged as asked
    ├── ParameterError     what a command was given is not what it takes
    ├── NotFound           no case, patch or repair has that id
    ├── StoreError         the store cannot be read or written
    │   └── StoreHeld      another program holds it: that passes
    ├── WorkerError        the repairing process failed or died
    └── ListenError        a server cannot be reached, or cannot be where it is asked to be

Each message says what happened, to what, and what to do now.
"""

__all__ = [
    "CatalogueError",
    "FlagError",
    "ListenError",
    "NotFound",
    "ParameterError",
    "ServerError",
    "SettingsError",
    "StoreError",
    "StoreHeld",
    "WorkerError",
]


class ServerError(Exception):
    """The request was refused, and nothing was changed."""


class CatalogueError(ServerError):
    """A model cannot be had, read or kept."""


class SettingsError(ServerError):
    """A setting is unknown or out of range."""


class FlagError(ServerError):
    """A completion cannot be flagged as asked."""


class ParameterError(ServerError):
    """What a command was given is not what it takes."""


class NotFound(ServerError):
    """No case, patch or repair has that id."""


class StoreError(ServerError):
    """The store cannot be read or written."""


class StoreHeld(StoreError):
    """Another program holds the store: that passes."""


class WorkerError(ServerError):
    """The repairing process failed or died."""


class ListenError(ServerError):
    """A server cannot be reached, or cannot be where it is asked to be."""
