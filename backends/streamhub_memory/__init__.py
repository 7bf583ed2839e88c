"""The ``memory://`` backend: streams inside one process, for tests, development and single-process services.

``memory://NAME`` names a namespace; hubs of one name in one process share it, from any thread and event loop.
What a namespace holds stays until its retention ends, the process does, or ``MemoryBackend.forget(name)``: closing
every hub does not empty it.
"""

from streamhub_memory.backend import MemoryBackend

__all__ = ["MemoryBackend"]
