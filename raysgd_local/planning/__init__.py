"""Before a run is paid for: what this machine measures, and what the simulator makes of it for each schedule.

`workload` runs the task for a few seconds; `forecast` puts what it measured into timing-only runs; `text` shows them.
"""
