"""Modules shared by several benchmarks, one a topic.

Every script imports them alike, `from lib.hosts import hosts`. Python looks beside the script, so `papers/lib` and
`docs/images/lib` are links to this folder; workers get the script's path from their driver and find it there too.
"""
