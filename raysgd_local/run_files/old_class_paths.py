"""Map old paths of classes that journals name to their present paths.

A journal's first line names the class of every record in the run's settings. When you move or rename one of these, add
its old path here, and update the targets of older ones.
"""

from __future__ import annotations

_SETTINGS = "raysgd_local.control.controller.settings"
_REPLICATED = "raysgd_local.control.replicated"
_PLACEMENT = "raysgd_local.algorithms.placement"

MOVED = {
    "raysgd_local.algorithms.placement:DisjointChunks": f"{_PLACEMENT}.kinds:DisjointChunks",
    "raysgd_local.algorithms.placement:LabelSkewed": f"{_PLACEMENT}.kinds:LabelSkewed",
    "raysgd_local.algorithms.placement:RedundantChunks": f"{_PLACEMENT}.kinds:RedundantChunks",
    "raysgd_local.control.pacing:Balance": f"{_REPLICATED}.balancing:Balance",
    "raysgd_local.control.program:Program": f"{_REPLICATED}.program:Program",
    "raysgd_local.control.settings:CheckpointPolicy": f"{_SETTINGS}:CheckpointPolicy",
    "raysgd_local.control.settings:Limit": f"{_SETTINGS}:Limit",
    "raysgd_local.control.settings:Settings": f"{_SETTINGS}:Settings",
    "raysgd_local.control.settings:Timeouts": f"{_SETTINGS}:Timeouts",
}


def todays(path: str) -> str:
    """Return the present path of a class whose path was `path` when the journal was written.

    >>> todays("raysgd_local.control.settings:Limit")
    'raysgd_local.control.controller.settings:Limit'
    """
    return MOVED.get(path, path)
