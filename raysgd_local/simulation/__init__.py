"""The same brains in virtual time: for finding bugs, and for planning.

`fleet` runs the real controller and members over simulated processes, network and clock; `scenario` says all of what
happens in a run, `faults` what goes wrong, `watch` asserts the design's invariants after every event, and `search`
tries seeds (`python -m raysgd_local.simulation.search --seeds 1000`). `cluster_model` says how long things take;
`timing` runs thousands of workers in lockstep where nothing goes wrong.
"""
