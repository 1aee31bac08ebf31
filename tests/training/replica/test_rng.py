"""The global random generators, as used by members that are threads of one process, and for every sample."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch.utils.data import Dataset

from raysgd_local.training.data.augmentation import SeededSamples
from raysgd_local.training.replica.rng import generators, seed_generators, set_generators

THREADS = """
import gc, sys, threading
from raysgd_local.training.replica.rng import generators, processor_generators_kept, seed_processor_generators

class Garbage:
    def __init__(self): self.itself = self
    def __del__(self): sum(range(2000))

def draw():
    for index in range(1000):
        with processor_generators_kept():
            seed_processor_generators(1, index)
        generators()
        Garbage()

gc.set_threshold(7)
sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=draw, daemon=True) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_garbage_collections_while_threads_take_the_generators_state_stop_nobody():
    subprocess.run([sys.executable, "-c", THREADS], timeout=60, check=True)


class Noise(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        return torch.rand(())


def test_a_sample_drawn_leaves_no_trace_in_the_generators_nor_in_what_cuda_is_to_do_once_it_begins():
    samples = SeededSamples(Noise(), seed=3, epoch=1)
    before, queued = torch.get_rng_state(), len(torch.cuda._queued_calls)
    first = samples.__getitems__([4, 7]).samples
    assert samples.__getitems__([7, 4]).samples == first[::-1]
    assert torch.equal(torch.get_rng_state(), before)
    assert len(torch.cuda._queued_calls) == queued


def test_states_taken_and_set_again_draw_the_same():
    seed_generators(1, 2)
    state, first = generators(), torch.rand(3)
    set_generators(state)
    assert torch.equal(torch.rand(3), first)
