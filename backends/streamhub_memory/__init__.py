"""The ``memory://`` backend."""
