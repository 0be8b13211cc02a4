"""The language server: documents, positions, settings; tensors only through the engine and the worker."""
