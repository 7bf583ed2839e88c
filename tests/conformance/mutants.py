"""Every class of bug that streamhub must not have, as a deliberate mistake, with the cases that must find it.

The number of a bug class is the project's own; ``test_mutants`` holds each mutant against its cases.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import broken_core
import broken_parts as broken
from broken_parts import with_parts

from streamhub.conformance.appends import AppendTests
from streamhub.conformance.cancel import CancelTests
from streamhub.conformance.concurrency import ConcurrencyTests
from streamhub.conformance.contract import ContractTests
from streamhub.conformance.ends import EndsTests
from streamhub.conformance.faults import FaultsTests
from streamhub.conformance.fencing import FencingTests
from streamhub.conformance.handoff import HandoffTests
from streamhub.conformance.hints import HintTests
from streamhub.conformance.input import InputTests
from streamhub.conformance.lease import LeaseTests
from streamhub.conformance.limits import LimitTests
from streamhub.conformance.opens import OpenTests
from streamhub.conformance.replay import ReplayTests
from streamhub.conformance.retention import RetentionTests
from streamhub.conformance.takeover import TakeoverTests


@dataclass(frozen=True)
class Case:
    """One case of the suite, with its parameters."""

    theme: type[ContractTests]
    name: str
    parameters: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        values = "-".join(map(str, self.parameters.values()))
        return f"{self.name}[{values}]" if values else self.name


@dataclass(frozen=True)
class Mutant:
    """One mistake. ``parts`` breaks a backend, ``patch`` the core; each of ``cases`` must fail."""

    mistake: str
    cases: tuple[Case, ...]
    parts: Callable[[Any], Any] = lambda backend: backend
    patch: Callable[[], Any] = contextlib.nullcontext


def _case(theme: type[ContractTests], name: str, **parameters: Any) -> Case:
    return Case(theme, f"test_{name}", parameters)


def _mutant(mistake: str, *cases: Case, **how: Any) -> Mutant:
    return Mutant(mistake, cases, **how)


MUTANTS = [
    # Ends: a clean finish means that everything was read, and nothing else does.
    _mutant(
        "a reader finishes before it has read the tail",
        _case(HandoffTests, "an_end_stored_while_a_page_is_read_does_not_cut_the_page_off"),
        _case(HandoffTests, "an_end_seen_before_its_chunks_does_not_finish_a_subscription"),
        patch=broken_core.subscription_ends_at_the_first_sight_of_an_end,
    ),
    _mutant(
        "a dead producer looks like success",
        _case(EndsTests, "a_subscription_never_finishes_cleanly_without_a_stored_end"),
        _case(TakeoverTests, "subscribers_of_a_dead_producer_are_told_within_the_bound"),
        patch=broken_core.subscription_takes_abandonment_for_success,
    ),
    _mutant(
        "readers of a dead producer hang",
        _case(TakeoverTests, "subscribers_of_a_dead_producer_are_told_within_the_bound"),
        patch=broken_core.nobody_is_ever_abandoned,
    ),
    _mutant(
        "a deletion looks like success",
        _case(EndsTests, "a_deletion_is_told_to_those_who_read"),
        _case(RetentionTests, "waiting_subscriber_wakes_at_delete"),
        patch=broken_core.subscription_takes_deletion_for_success,
    ),
    _mutant(
        "the end could not be stored and nobody is told",
        _case(EndsTests, "an_end_that_cannot_be_stored_is_an_error"),
        patch=broken_core.error_of_the_end_is_swallowed,
    ),
    _mutant(
        "a source that raises leaves the stream open",
        _case(EndsTests, "a_body_that_raises_fails_the_run_and_its_caller"),
        _case(EndsTests, "a_started_source_that_raises_fails_the_run"),
        patch=broken_core.error_of_the_source_leaves_the_run_open,
    ),
    _mutant(
        "a task cancelled at shutdown never ends its run",
        _case(EndsTests, "an_outer_cancellation_is_stored_as_interrupted"),
        patch=broken_core.interruption_leaves_the_run_open,
    ),
    _mutant(
        "a failure drops what was not flushed yet",
        _case(EndsTests, "a_body_that_raises_fails_the_run_and_its_caller"),
        patch=broken_core.error_drops_what_is_not_flushed,
    ),
    _mutant(
        "the first reader to finish deletes the stream",
        _case(ReplayTests, "two_replays_are_equal"),
        patch=broken_core.first_subscriber_to_finish_deletes_the_stream,
    ),
    _mutant(
        "a chunk can look like the end",
        _case(ReplayTests, "every_payload_survives"),
        parts=with_parts(store=broken.StoreWithEndMarkers),
    ),
    # Runs and cursors: what was read is never continued by something else.
    _mutant(
        "a reader goes on into the next run",
        _case(TakeoverTests, "replacing_a_run_tells_its_subscribers"),
        patch=broken_core.subscription_goes_on_into_the_next_run,
    ),
    _mutant(
        "a cursor of another run is accepted",
        _case(RetentionTests, "cursor_of_a_replaced_run_is_refused"),
        _case(RetentionTests, "cursor_of_a_deleted_run_never_yields_anothers_chunks"),
        _case(TakeoverTests, "a_cursor_of_a_replaced_run_is_refused"),
        patch=broken_core.cursors_of_other_runs_are_accepted,
    ),
    _mutant(
        "'latest' is resolved again later: what came between is lost",
        _case(ReplayTests, "latest_gives_what_is_appended_after_it_attached"),
        patch=broken_core.latest_is_resolved_when_the_first_chunk_is_asked_for,
    ),
    _mutant(
        "trimmed chunks are skipped silently",
        _case(LimitTests, "page_before_the_trimmed_edge_is_empty_and_says_where_it_is"),
        parts=with_parts(store=broken.StoreThatSkipsWhatIsTrimmed),
    ),
    _mutant(
        "negative offsets are accepted",
        _case(InputTests, "malformed_offsets_are_refused_before_any_io"),
        patch=broken_core.negative_offsets_are_read,
    ),
    _mutant(
        "a run cannot be subscribed before its first chunk",
        _case(HandoffTests, "a_subscriber_of_an_empty_run_gets_the_first_chunk"),
        parts=with_parts(store=broken.StoreThatHidesEmptyRuns),
    ),
    # Delivery: hints are hints.
    _mutant(
        "what is pushed is delivered as it comes: duplicates, and another order than the log's",
        _case(HintTests, "late_and_repeated_hints_change_nothing"),
        patch=broken_core.every_pushed_append_is_delivered,
    ),
    _mutant(
        "the listener dies with its connection",
        _case(CancelTests, "the_listener_survives_a_dropped_connection"),
        patch=broken_core.listener_gives_up_at_the_first_failure,
    ),
    _mutant(
        "the listener comes back deaf",
        _case(CancelTests, "the_listener_survives_a_dropped_connection"),
        parts=with_parts(cancels=broken.CancelsWhoseListenerDies),
    ),
    _mutant(
        "the feed comes back deaf",
        _case(FaultsTests, "delivery_goes_on_when_the_feed_breaks"),
        parts=with_parts(store=broken.StoreWhoseFeedDies),
    ),
    _mutant(
        "a driver's time-out ends the feed and nobody notices",
        _case(HandoffTests, "an_idle_subscriber_gets_the_next_chunk"),
        parts=with_parts(store=broken.StoreWhoseFeedTiresOfWaiting),
    ),
    _mutant(
        "a connection for each reader",
        _case(ConcurrencyTests, "connections_grow_per_process"),
        patch=broken_core.every_subscriber_has_its_own_connection,
    ),
    _mutant(
        "what a subscriber leaves behind stays",
        _case(ConcurrencyTests, "a_thousand_attachments_leave_nothing"),
        patch=broken_core.feeds_are_never_let_go,
    ),
    _mutant(
        "a queue without a bound",
        _case(HandoffTests, "the_memory_of_a_stuck_subscriber_is_bounded"),
        patch=broken_core.everything_pushed_is_kept,
    ),
    _mutant(
        "a subscription loads the whole stream",
        _case(ReplayTests, "ten_thousand_chunks_replay_in_bounded_pages"),
        parts=with_parts(store=broken.StoreWithoutPages),
    ),
    # Fencing: check and write are one step.
    _mutant(
        "a stale writer is not refused",
        _case(FencingTests, "stale_generation_cannot_append"),
        _case(FencingTests, "stale_generation_cannot_end"),
        _case(FencingTests, "stale_generation_cannot_change_metadata"),
        _case(FencingTests, "append_paused_before_it_is_made_is_refused_after_a_new_open", what="chunks"),
        parts=with_parts(store=broken.StoreThatTrustsTheCaller),
    ),
    _mutant(
        "a refused append is acknowledged",
        _case(AppendTests, "append_that_leaves_a_gap_is_refused"),
        _case(AppendTests, "ended_is_decided_before_conflict"),
        parts=with_parts(store=broken.StoreThatAcknowledgesRefusals),
    ),
    _mutant(
        "an append is checked, then written",
        _case(AppendTests, "two_writers_of_one_generation_never_both_get_an_index"),
        _case(FencingTests, "append_racing_with_a_new_open_is_before_it_or_refused", what="chunks"),
        parts=with_parts(store=broken.StoreThatChecksThenWrites),
    ),
    _mutant(
        "an open is checked, then made",
        _case(OpenTests, "racing_opens_have_one_winner"),
        parts=with_parts(store=broken.StoreThatOpensInTwoSteps),
    ),
    _mutant(
        "chunks, metadata and end are stored one by one",
        _case(AppendTests, "append_is_seen_whole_or_not_at_all"),
        parts=with_parts(store=broken.StoreThatWritesInPieces),
    ),
    _mutant(
        "a retried append is stored twice",
        _case(AppendTests, "append_retried_after_a_lost_reply_is_stored_once", what="chunks"),
        _case(AppendTests, "retry_is_decided_before_conflict"),
        parts=with_parts(store=broken.StoreThatForgetsNonces),
    ),
    _mutant(
        "delete leaves no fence",
        _case(OpenTests, "producer_overtaken_between_acquire_and_open_cannot_open", gone="deleted"),
        _case(RetentionTests, "stream_can_be_created_again", gone="deleted"),
        parts=with_parts(store=broken.StoreWithoutFences),
    ),
    _mutant(
        "generations are compared as text",
        _case(FencingTests, "generations_are_compared_as_numbers", generation=9),
        parts=with_parts(store=broken.StoreThatComparesAsText),
    ),
    # Leases.
    _mutant(
        "an election by GET, then SET",
        _case(LeaseTests, "of_concurrent_acquisitions_exactly_one_wins"),
        parts=with_parts(leases=broken.LeasesThatLookThenTake),
    ),
    _mutant(
        "a crash blocks the stream for minutes",
        _case(LeaseTests, "lease_that_is_not_renewed_can_be_taken_within_its_time"),
        _case(TakeoverTests, "a_dead_producers_stream_is_resumed_within_its_time_to_live"),
        parts=with_parts(leases=broken.LeasesThatLastTooLong),
    ),
    _mutant(
        "any error of a renewal counts as a lost lease",
        _case(TakeoverTests, "failed_renewals_do_not_stop_a_run_within_its_lease"),
        patch=broken_core.failed_renewal_counts_as_a_lost_lease,
    ),
    _mutant(
        "a producer is not told that its lease is lost",
        _case(TakeoverTests, "a_definite_loss_stops_a_stalled_producer"),
        patch=broken_core.lost_lease_is_not_told,
    ),
    _mutant(
        "the heartbeat outlives the run",
        _case(TakeoverTests, "a_finished_run_leaves_no_lease"),
        patch=broken_core.leases_are_never_released,
    ),
    _mutant(
        "generations made by the clock alone",
        _case(LeaseTests, "lease_time_is_the_servers", skew=-3600.0),
        _case(FencingTests, "generations_increase_across_connections"),
        parts=with_parts(leases=broken.LeasesNumberedByTheClock),
    ),
    _mutant(
        "generations begin again",
        _case(FencingTests, "generations_increase_across_connections"),
        _case(FencingTests, "generations_increase_when_the_chunks_are_lost"),
        parts=with_parts(leases=broken.LeasesThatBeginAgain),
    ),
    _mutant(
        "anybody can release a lease",
        _case(FencingTests, "stale_release_does_nothing"),
        _case(LeaseTests, "release_is_harmless_when_repeated_or_stale"),
        parts=with_parts(leases=broken.LeasesReleasedByAnyone),
    ),
    _mutant(
        "a retried acquire deposes its own producer",
        _case(LeaseTests, "acquire_retried_after_a_lost_reply_gives_the_same_lease"),
        _case(LeaseTests, "acquire_retried_does_not_depose_its_own_producer"),
        parts=with_parts(leases=broken.LeasesThatDeposeTheirOwner),
    ),
    _mutant(
        "a renewal revives what has run out",
        _case(LeaseTests, "expired_lease_is_not_revived_by_its_renewal"),
        _case(FencingTests, "stale_lease_is_not_renewed"),
        parts=with_parts(leases=broken.LeasesWhoseRenewalRevives),
    ),
    # Cancels.
    _mutant(
        "a cancel is a notification and nothing more",
        _case(CancelTests, "a_cancel_of_a_named_run_that_is_not_open_yet_is_kept_for_it"),
        _case(CancelTests, "a_cancel_whose_notification_is_dropped_is_seen_by_the_next_poll"),
        parts=with_parts(cancels=broken.CancelsOnlyNotified),
    ),
    _mutant(
        "a cancel hits the next run",
        _case(CancelTests, "a_cancel_of_one_run_leaves_the_others_alone"),
        parts=with_parts(cancels=broken.CancelsWithoutRun),
    ),
    _mutant(
        "a producer that begins erases the cancel that was there before",
        _case(CancelTests, "a_cancel_of_a_named_run_that_is_not_open_yet_is_kept_for_it"),
        parts=with_parts(cancels=broken.CancelsErasedByTheProducer),
    ),
    _mutant(
        "a cancel stays for good",
        _case(RetentionTests, "nothing_is_left_once_the_fence_has_gone"),
        parts=with_parts(cancels=broken.CancelsKeptForGood),
    ),
    _mutant(
        "the last cancel wins",
        _case(CancelTests, "repeated_cancels_are_one"),
        parts=with_parts(cancels=broken.CancelsThatReplace),
    ),
    _mutant(
        "a cancel waits for ever",
        _case(CancelTests, "waiting_for_a_cancel_has_a_bound"),
        patch=broken_core.canceller_waits_for_ever,
    ),
    # Retention and input.
    _mutant(
        "a marker without a time to live",
        _case(RetentionTests, "nothing_is_left_once_the_fence_has_gone"),
        _case(RetentionTests, "expired_stream_is_expired_then_not_found_never_empty", ended=True),
        parts=with_parts(store=broken.StoreThatKeepsFences),
    ),
    _mutant(
        "a stream's life counts from its creation",
        _case(RetentionTests, "appends_extend_an_open_streams_life"),
        _case(RetentionTests, "ended_streams_retention_counts_from_its_end"),
        parts=with_parts(store=broken.StoreThatCountsFromCreation),
    ),
    _mutant(
        "characters of a key have a meaning",
        _case(InputTests, "hard_keys_are_kept_and_never_collide"),
        parts=with_parts(store=broken.StoreThatCleansKeys),
    ),
    _mutant(
        "line breaks are let through",
        _case(InputTests, "bad_keys_and_run_names_are_refused_before_any_io"),
        patch=broken_core.control_characters_are_accepted,
    ),
]
