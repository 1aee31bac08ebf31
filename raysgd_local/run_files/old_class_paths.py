"""Classes that journals name and that have moved since: their old paths, and where they are now.

A journal's first line names the class of everything in the run's settings. Whoever moves or renames one of those
adds its old path here, and changes what older ones lead to.
"""

from __future__ import annotations

_SETTINGS = "raysgd_local.control.controller.settings"
_REPLICATED = "raysgd_local.control.replicated"

MOVED = {
    "raysgd_local.control.pacing:Balance": f"{_REPLICATED}.balancing:Balance",
    "raysgd_local.control.program:Program": f"{_REPLICATED}.program:Program",
    "raysgd_local.control.settings:CheckpointPolicy": f"{_SETTINGS}:CheckpointPolicy",
    "raysgd_local.control.settings:Limit": f"{_SETTINGS}:Limit",
    "raysgd_local.control.settings:Settings": f"{_SETTINGS}:Settings",
    "raysgd_local.control.settings:Timeouts": f"{_SETTINGS}:Timeouts",
}


def todays(path: str) -> str:
    """Where the class is now that was at `path` when the journal was written.

    >>> todays("raysgd_local.control.settings:Limit")
    'raysgd_local.control.controller.settings:Limit'
    """
    return MOVED.get(path, path)
