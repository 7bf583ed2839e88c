"""``python -m streamhub`` is the ``streamhub`` command."""

from __future__ import annotations

import sys

from streamhub.cli import main

if __name__ == "__main__":
    sys.exit(main())
