"""Dispatch: a routed task starts its TDE.

The start is a message whose correlation key is the task's job key, and the engine runs at most one instance of a
process per correlation key. Whoever dispatches a task, and however often, it has at most one TDE at a time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from prokos.engine import EngineUnavailableError, to_json
from prokos.resources.names import tde_message

if TYPE_CHECKING:
    from prokos.engine import EngineClient
    from prokos.tde import TaggedTask


def build_variables(task: TaggedTask, raw_variables: str) -> str:
    """The TDE's one variable as JSON text: the tag, with the task's own variables in it, every digit as it came.

    Each further variable would cost the engine two records.
    """
    tagged = to_json(task.to_variable())
    return f'{{"prokosTask":{tagged[:-1]},"input":{raw_variables}}}}}'


async def start_tde(client: EngineClient, task: TaggedTask, executor: str, raw_variables: str) -> None:
    """Publish the TDE's start message.

    When an answer is lost, the message is repeated with the mark `verify`: the first one may have started a TDE
    that has ended by now, and the second one must not do its work again.
    """
    name, key = tde_message(executor), str(task.job_key)
    try:
        await client.publish_message(name, key, build_variables(task, raw_variables), idempotent=False)
    except EngineUnavailableError:
        again = replace(task, verify=True)
        await client.publish_message(name, key, build_variables(again, raw_variables))
