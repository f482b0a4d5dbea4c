"""TaskRoutes that people wrote: kept in the registry as long as they are desired."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prokos.registry import Store
    from prokos.resources import TaskRoute

ORIGIN = "prokos.io/origin"
"""Annotation of the registry's routes that come from the desired state; the others are the router's own."""


async def keep_routes(store: Store, desired: Iterable[TaskRoute]) -> None:
    """Make the registry's desired routes those that are desired now."""
    wanted = {route.metadata.name: mark(route) for route in desired}
    known = {route.metadata.name: route for route in store.load().routes}
    for name, route in wanted.items():
        if known.get(name) != route:
            await store.put_route(route)
    for name, route in known.items():
        if ORIGIN in route.metadata.annotations and name not in wanted:
            await store.remove_route(name)


def mark(route: TaskRoute) -> TaskRoute:
    """A route with the mark that it is desired."""
    annotations = {**route.metadata.annotations, ORIGIN: "manifest"}
    return route.model_copy(update={"metadata": route.metadata.model_copy(update={"annotations": annotations})})
