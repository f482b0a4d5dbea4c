"""What is done about a Helm release, by its history."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from prokos.k8s.helm import Revision
from prokos.k8s.release_plan import (
    DIGEST_LABEL,
    FIRST_RETRY,
    SYSTEM_LABEL,
    SeenRelease,
    Step,
    WantedRelease,
    plan_release,
)

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
TIMEOUT = timedelta(minutes=15)
OURS = {SYSTEM_LABEL: "demo", DIGEST_LABEL: "new"}
OLD = {SYSTEM_LABEL: "demo", DIGEST_LABEL: "old"}

WANTED = WantedRelease(
    system="demo",
    chart="camunda-platform",
    version="14",
    digest="new",
    named=False,
    version_given=True,
    settled=None,
    timeout=TIMEOUT,
)


def history(*entries: str, age: timedelta = timedelta(minutes=1)) -> list[Revision]:
    """Revisions by status, or `status: description`; the newest is as old as `age`."""
    revisions = []
    for number, entry in enumerate(entries, 1):
        status, _, description = entry.partition(": ")
        updated = NOW - age - timedelta(minutes=len(entries) - number)
        revisions.append(
            Revision(number, status, updated, "camunda-platform-14.8.4", description or "Upgrade complete")
        )
    return revisions


def seen(*entries: str, age: timedelta = timedelta(minutes=1), **changes: Any) -> SeenRelease:
    values: dict[str, Any] = {"chart": "camunda-platform", "version": "14.8.4", "labels": OURS}
    return SeenRelease(history(*entries, age=age), **{**values, **changes})


def plan(release: SeenRelease | None, **changes: Any) -> Step:
    return plan_release(replace(WANTED, **changes), release, NOW)


# --- as it should be -----------------------------------------------------------------------------------------


def test_installs_what_is_not_there() -> None:
    assert plan(None).verb == "Install"


def test_leaves_alone_what_is_as_wanted() -> None:
    assert plan(seen("deployed")).verb == "Nothing"


def test_upgrades_when_the_desired_state_is_another() -> None:
    assert plan(seen("deployed", labels=OLD)) == Step("Upgrade", "Changed")


def test_puts_back_what_is_missing() -> None:
    step = plan(seen("deployed", missing=["StatefulSet pdo-zeebe"]))
    assert (step.verb, step.reason, step.message) == ("Upgrade", "Drift", "StatefulSet pdo-zeebe was gone")


def test_installs_again_what_was_uninstalled_with_its_history_kept() -> None:
    assert plan(seen("uninstalled")).verb == "Install"


# --- whose it is ---------------------------------------------------------------------------------------------


def test_takes_over_a_release_made_by_hand() -> None:
    assert plan(seen("deployed", labels={})) == Step("Upgrade", "Adopted")


@pytest.mark.parametrize(
    ("changes", "who"),
    [({"labels": {SYSTEM_LABEL: "other"}}, "ProkOS other"), ({"labels": {}, "manager": "Flux"}, "Flux")],
)
def test_takes_over_what_another_keeps_only_when_it_is_named(changes: dict[str, Any], who: str) -> None:
    step = plan(seen("deployed", **changes))
    assert (step.verb, step.reason) == ("Refuse", "ReleaseOfAnother")
    assert who in step.message
    assert plan(seen("deployed", **changes), named=True).verb == "Upgrade"


def test_a_mark_of_another_tool_on_our_own_release_is_no_matter() -> None:
    assert plan(seen("deployed", manager="Argo CD")).verb == "Nothing"


def test_refuses_a_release_of_another_chart() -> None:
    step = plan(seen("deployed", chart="nginx"), named=True)
    assert (step.verb, step.reason) == ("Refuse", "OtherChart")


@pytest.mark.parametrize(
    ("installed", "wanted", "given", "verb"),
    [
        ("13.12.7", "14", False, "Refuse"),
        ("13.12.7", "14", True, "Upgrade"),
        ("14.8.4", "13", True, "Refuse"),
        ("12.13.3", "13", True, "Refuse"),
        ("12.13.3", "14", True, "Refuse"),
        ("14.1.0", "14", False, "Upgrade"),
    ],
)
def test_camunda_goes_up_one_version_and_only_if_the_resource_says_so(
    installed: str, wanted: str, given: bool, verb: str
) -> None:
    step = plan(seen("deployed", version=installed, labels=OLD), version=wanted, version_given=given)
    assert step.verb == verb
    assert step.reason in {"OtherVersion", "Changed"}


# --- what was interrupted ------------------------------------------------------------------------------------


def test_goes_back_from_an_upgrade_that_was_interrupted_and_tries_again_at_once() -> None:
    step = plan(seen("superseded", "deployed", "pending-upgrade"))
    assert (step.verb, step.revision, step.reason) == ("Rollback", 2, "Interrupted")
    after = seen(
        "superseded", "superseded", "pending-upgrade", "deployed: Rollback to 2", labels=OLD, digest_before="new"
    )
    assert plan(after).verb == "Upgrade"


def test_removes_a_first_install_that_was_interrupted() -> None:
    assert plan(seen("pending-install")).verb == "Uninstall"


def test_goes_on_with_a_rollback_that_was_interrupted_to_where_it_went() -> None:
    release = seen("superseded", "deployed", "pending-rollback: Rollback to 1", labels=OLD, digest_before="new")
    assert plan(release).revision == 1


def test_finishes_an_uninstall_that_was_interrupted() -> None:
    assert plan(seen("uninstalling")).verb == "Uninstall"


def test_waits_for_what_somebody_else_does_but_not_for_ever() -> None:
    assert plan(seen("deployed", "pending-upgrade", labels={})).verb == "Wait"
    step = plan(seen("deployed", "pending-upgrade", labels={}, age=TIMEOUT + timedelta(seconds=1)))
    assert (step.verb, step.revision) == ("Rollback", 1)


def test_an_upgrade_that_we_ended_ourselves_is_no_failure() -> None:
    release = seen("deployed", 'failed: Upgrade "pdo" failed: context canceled')
    assert plan(release).verb == "Upgrade"


# --- what failed ---------------------------------------------------------------------------------------------


def test_goes_back_from_an_upgrade_that_failed_and_says_why() -> None:
    step = plan(seen("superseded", "deployed", 'failed: Upgrade "pdo" failed: spec: Forbidden'))
    assert (step.verb, step.revision, step.reason) == ("Rollback", 2, "UpgradeFailed")
    assert "spec: Forbidden" in step.message


ROLLED_BACK = ("deployed", "failed: no", "deployed: Rollback to 1")


def test_a_state_that_was_rolled_back_is_tried_again_after_a_while() -> None:
    step = plan(seen(*ROLLED_BACK, labels=OLD, digest_before="new"))
    assert (step.verb, step.reason) == ("Wait", "RolledBack")
    assert "revision 2 was rolled back: no" in step.message
    assert "12:14:00 UTC" in step.message
    assert plan(seen(*ROLLED_BACK, labels=OLD, digest_before="new", age=TIMEOUT)).verb == "Upgrade"


def test_the_second_time_it_takes_twice_as_long() -> None:
    twice = ("superseded", "failed: no", "superseded: Rollback to 1", "failed: no", "deployed: Rollback to 3")
    assert plan(seen(*twice, labels=OLD, digest_before="new", age=TIMEOUT)).verb == "Wait"
    assert plan(seen(*twice, labels=OLD, digest_before="new", age=TIMEOUT * 2)).verb == "Upgrade"


def test_another_state_is_tried_at_once() -> None:
    assert plan(seen(*ROLLED_BACK, labels=OLD, digest_before="other")).verb == "Upgrade"
    assert plan(seen("deployed", "failed: no", labels=OLD)).verb == "Upgrade"


def test_back_to_the_state_that_runs_is_nothing_to_do() -> None:
    assert plan(seen(*ROLLED_BACK, labels=OLD, digest_before="new"), digest="old").verb == "Nothing"


def test_a_first_install_that_failed_is_tried_again_in_place() -> None:
    step = plan(seen("failed: bad name", age=timedelta(seconds=1)))
    assert (step.verb, step.reason) == ("Wait", "InstallFailed")
    assert "bad name" in step.message
    assert plan(seen("failed: bad name", age=FIRST_RETRY)).verb == "Upgrade"
    assert plan(seen("failed: bad name", "failed: bad name", age=FIRST_RETRY)).verb == "Wait"


def test_a_rollback_that_failed_is_tried_again() -> None:
    release = ("deployed", "superseded", 'failed: Rollback "pdo" failed: no')
    waiting = seen(*release, labels=OLD, digest_before="new", age=timedelta(seconds=1))
    assert plan(waiting).verb == "Wait"
    step = plan(replace(waiting, history=history(*release, age=FIRST_RETRY)))
    assert (step.verb, step.revision) == ("Rollback", 1)


# --- what does not get ready ---------------------------------------------------------------------------------


def test_goes_back_when_an_upgrade_is_not_ready_in_time() -> None:
    upgrade = ("superseded", "deployed")
    assert plan(seen(*upgrade, ready=False), settled=1).verb == "Nothing"
    step = plan(seen(*upgrade, ready=False, age=TIMEOUT), settled=1)
    assert (step.verb, step.revision, step.reason) == ("Rollback", 1, "NotReadyInTime")


@pytest.mark.parametrize(
    ("entries", "settled"),
    [
        (("superseded", "deployed"), None),  # Nothing ever ran: there is nothing to go back to.
        (("superseded", "deployed"), 2),  # It ran: what is wrong now is not the upgrade's fault.
        (("superseded", "superseded", "deployed: Rollback to 1"), 1),  # It went back already.
        (("superseded", "deployed"), 0),  # The revision that ran is no longer kept.
        (("deployed",), None),
    ],
)
def test_stays_when_going_back_would_not_help(entries: tuple[str, ...], settled: int | None) -> None:
    assert plan(seen(*entries, ready=False, age=TIMEOUT * 10), settled=settled).verb == "Nothing"


def test_a_state_that_did_not_get_ready_is_not_tried_again_at_once() -> None:
    release = seen("superseded", "superseded", "deployed: Rollback to 1", labels=OLD, digest_before="new")
    step = plan(release, settled=3)
    assert (step.verb, step.reason) == ("Wait", "RolledBack")
