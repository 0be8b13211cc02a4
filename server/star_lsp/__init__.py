"""The language server: documents, positions, settings; tensors only through the engine and the worker."""

#: Of the package and the extension too. To look it up among what is installed takes as long as all else
#: that an editor's process does to join a server.
__version__ = "0.1.0"
