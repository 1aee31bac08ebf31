"""The same brains in virtual time: for finding bugs, and for planning.

`cluster`: how long steps, messages and starts take. `engine`: the fleet, that is the real controller over simulated
processes, network and clock. Three programs run on it: `learning` really trains, with the shell and the loop of a real
worker, and writes a run directory; `search` tries random scenarios from seeds (`raysgd-local search`), with a model
that is one number, and asserts every invariant after every event; `timing` runs thousands of workers in lockstep, where
nothing goes wrong, for their times alone.
"""
