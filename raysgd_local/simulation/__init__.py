"""The same brains in virtual time: for finding bugs, and for planning.

`fleet` runs the real controller over simulated processes, network and clock; `cluster_model` says how long things
take. In `learning` the processes are `learner`s, which really train with the shell and the loop of a real worker,
and `recorder` writes a run's directory. In `trial` they are `worker`s, whose model is a number: `scenario` says all
of what happens, `faults` draws what goes wrong, `watch` asserts the design's invariants after every event, and
`search` tries seeds (`python -m raysgd_local.simulation.search --seeds 1000`). `timing` runs thousands of workers
in lockstep where nothing goes wrong.
"""
