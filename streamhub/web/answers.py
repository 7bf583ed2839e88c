"""Starting a run for a request, once however often the request comes, and wherever."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.exceptions import HTTPException

from streamhub.block import Source
from streamhub.errors import (
    BackendUnavailableError,
    DrainingError,
    HubClosedError,
    InvalidKeyError,
    LeaseHeldError,
    ProducerCancelledError,
    StreamEndedError,
    StreamUnfinishedError,
)
from streamhub.hub import Hub
from streamhub.settings import OnInterrupt
from streamhub.starter import Unfinished
from streamhub.types import Metadata, Retention

RETRY_AFTER = {"retry-after": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an application answers a request with: the source of a run, and how ``hub.start`` is to start it.

    Attributes:
        source: called with the producer, only by the instance that wins; see ``hub.start``.
        run: the run's name. It decides what counts as the same request sent twice.
        unfinished: what becomes of a run whose producer died; by default the answer begins anew.
    """

    source: Source
    run: str | None = None
    unfinished: Unfinished = "replace"
    metadata: Metadata | None = None
    retention: Retention | None = None
    on_interrupt: OnInterrupt | None = None


async def start_answer(hub: Hub, key: str, answer: Answer) -> str:
    """Start the answer's run, or join it, or find it ended; return its name, to subscribe to.

    Raises:
        HTTPException: 409 another run is being produced; 503 not now.
    """
    try:
        outcome = await hub.start(
            key,
            answer.source,
            run=answer.run,
            unfinished=answer.unfinished,
            metadata=answer.metadata,
            retention=answer.retention,
            on_interrupt=answer.on_interrupt,
        )
    except (StreamEndedError, ProducerCancelledError) as over:
        run = over.run or answer.run  # answered before: read it again
        if run is None:
            raise
        return run
    except LeaseHeldError:
        raise HTTPException(409, "another answer is being produced") from None
    except StreamUnfinishedError:
        raise HTTPException(409, "an unfinished answer is in the way") from None
    except InvalidKeyError:
        raise HTTPException(400, "invalid key or run") from None
    except (DrainingError, HubClosedError, BackendUnavailableError):
        raise HTTPException(503, "try again", headers=RETRY_AFTER) from None
    return outcome.run
