"""Dispatch: a routed task starts its TDE.

The start is a message whose correlation key is the task's job key, and the engine runs at most one instance of a
process per correlation key. Whoever dispatches a task, and however often, it has at most one TDE at a time.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from prokos.engine import EngineUnavailableError, to_json
from prokos.resources.names import tde_message

if TYPE_CHECKING:
    from prokos.engine import EngineClient
    from prokos.resources import TaskExecutor
    from prokos.tde import TaggedTask


def build_variables(task: TaggedTask, executor: TaskExecutor, raw_variables: str) -> str:
    """The TDE's variables as JSON text. The task's own are passed on unparsed, every digit as it came.

    An executor with `inputs` mappings gets them side by side, as its FEEL expressions name them; one with `outputs`
    alone as one variable, `input`, which its expressions may name; any other within the tag. A variable costs the
    engine two records.
    """
    tagged = to_json(task.to_variable())
    if not executor.spec.inputs and not executor.spec.outputs:
        return f'{{"prokosTask":{tagged[:-1]},"input":{raw_variables}}}}}'
    if not executor.spec.inputs:
        return f'{{"prokosTask":{tagged},"input":{raw_variables}}}'
    if '"prokosTask"' in raw_variables:
        # A process's own variable of this name must not pass for the tag: which of the two the engine takes is open.
        raw_variables = to_json(
            {name: value for name, value in json.loads(raw_variables).items() if name != "prokosTask"}
        )
    rest = raw_variables.strip()[1:]
    separator = "" if rest.strip() == "}" else ","
    return f'{{"prokosTask":{tagged}{separator}{rest}'


async def start_tde(client: EngineClient, task: TaggedTask, executor: TaskExecutor, raw_variables: str) -> None:
    """Publish the TDE's start message.

    When an answer is lost, the message is repeated with the mark `verify`: the first one may have started a TDE
    that has ended by now, and the second one must not do its work again.
    """
    name, key = tde_message(executor.metadata.name), str(task.job_key)
    try:
        await client.publish_message(name, key, build_variables(task, executor, raw_variables), idempotent=False)
    except EngineUnavailableError:
        again = replace(task, verify=True)
        await client.publish_message(name, key, build_variables(again, executor, raw_variables))
