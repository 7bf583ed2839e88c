"""streamhub in a directory of plain files, for the processes of one host: ``shelf:///relative`` or ``shelf:////abs``."""

from streamhub_shelf.backend import ShelfBackend

__all__ = ["ShelfBackend"]
