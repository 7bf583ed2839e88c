"""The ``streamhub`` command. Each group of subcommands has its module; ``parser`` lists them all.

Exit status: 0 completed, 1 error, 2 usage, 3 failed, 4 cancelled, 5 abandoned, 130 on SIGINT, 143 on SIGTERM (but 0 of
``serve``, which these stop in order), and 141 when the reader of standard output has gone. Standard output carries data
only, standard error the rest.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from streamhub.cli import output, status
from streamhub.cli.parser import parse
from streamhub.errors import StreamHubError

STDOUT = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: the arguments after the command's name; None for the process's own.
    """
    output.prepare()
    try:
        args = parse(argv)
        code: int = args.handler(args)
        if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison] - it is when closed
            sys.stdout.flush()
    except StreamHubError as exc:
        output.fail(output.explain(exc))
        return status.of_error(exc)
    except BrokenPipeError:
        # The reader has gone (`| head`): quiet, and nothing may be flushed to it at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
        return status.PIPE
    except OSError as exc:
        output.fail(str(exc))
        return status.ERROR
    except KeyboardInterrupt:
        return status.INTERRUPTED
    return code
