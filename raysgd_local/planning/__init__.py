"""Plan a run before paying for it: measure the task on this machine, and forecast the time with each schedule.

`workload` runs the task for a few seconds; `forecast` uses the measurements in timing-only simulations; `text` prints
the results.
"""
