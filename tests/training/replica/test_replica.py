"""What a joiner gets and a checkpoint keeps: all of a replica's state, and nothing that can't be read back."""

from __future__ import annotations

import enum
from collections import deque, namedtuple
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from raysgd_local.algorithms.averaging import Mean
from raysgd_local.control.messages import Save
from raysgd_local.errors import InputError, UsageError
from raysgd_local.run_files.storage import Storage
from raysgd_local.state.anchor import Anchor
from raysgd_local.training.replica.checkpoint_parts import ShardWriter
from raysgd_local.training.replica.plain_values import check_plain, from_bytes, to_bytes
from raysgd_local.training.replica.replica import Prepared, Replica
from raysgd_local.training.replica.transfer import give_local_state, give_state
from raysgd_local.transport.in_process import InProcessNetwork


class Cached(nn.Linear):
    """With a buffer that its `state_dict` leaves out, and one that grows."""

    def __init__(self, value: float = 0.0, seen: int = 0) -> None:
        super().__init__(4, 1)
        self.register_buffer("cache", torch.full((3,), value), persistent=False)
        self.register_buffer("seen", torch.ones(seen))
        self.register_buffer("late", torch.ones(2) if seen else None)


def replica_of(model: nn.Module, *more: nn.Parameter, **options: object) -> Replica:
    optimizer = torch.optim.SGD([*model.parameters(), *more], lr=0.1, momentum=0.9)
    return Replica([model], [Prepared(optimizer, None, [0.1])], **options)


def passed_on(giver: Replica, receiver: Replica) -> None:
    """From a member to one that joins."""
    network = InProcessNetwork()
    with ThreadPoolExecutor(2) as pool:
        transports = list(pool.map(lambda rank: network.connect(1, rank, 2), range(2)))
        done = [pool.submit(give_state, transports[r], 0, r == 1, [giver, receiver][r]) for r in range(2)]
        for each in done:
            each.result(timeout=20)


def test_a_joiner_gets_buffers_that_the_state_dict_leaves_out_and_those_that_grew():
    giver, receiver = Cached(7.0, seen=5), Cached()
    assert "cache" not in giver.state_dict()
    passed_on(replica_of(giver), replica_of(receiver))
    for name, buffer in giver.named_buffers():
        assert torch.equal(dict(receiver.named_buffers())[name], buffer), name


def test_a_checkpoint_keeps_buffers_that_the_state_dict_leaves_out_and_the_models_file_stays_a_state_dict():
    state = from_bytes(to_bytes(replica_of(Cached(7.0)).shared_state()))
    assert state["model"].keys() == Cached().state_dict().keys()
    resumed = Cached()
    replica_of(resumed).load_shared_state(state)
    assert torch.equal(resumed.cache, torch.full((3,), 7.0))


def test_state_of_a_version_that_kept_neither_is_still_loaded():
    state = replica_of(Cached(7.0)).shared_state()
    for key in ("beside", "unsaved_buffers"):
        del state[key]
    resumed = Cached()
    replica_of(resumed).load_shared_state(state)
    assert torch.equal(resumed.cache, torch.zeros(3))


def test_parameters_beside_the_model_are_averaged():
    models, extra = [Cached(), Cached()], [nn.Parameter(torch.tensor([float(i)])) for i in range(2)]
    states = [replica_of(model, e).averaged() for model, e in zip(models, extra, strict=True)]
    flat = torch.zeros(states[0].numel)
    for state, weight in zip(states, [1.0, 3.0], strict=True):
        own = torch.zeros_like(flat)
        assert state.pack(own, weight)
        flat += own
    for state in states:
        state.install(flat, 4.0)
    assert [e.item() for e in extra] == [0.75, 0.75]


def test_parameters_beside_the_model_are_given_to_a_joiner_and_kept_in_checkpoints():
    extra = [nn.Parameter(torch.tensor([float(i)])) for i in (3, 0, 0)]
    replicas = [replica_of(Cached(), e) for e in extra]
    passed_on(replicas[0], replicas[1])
    replicas[2].load_shared_state(from_bytes(to_bytes(replicas[0].shared_state())))
    assert [e.item() for e in extra] == [3.0, 3.0, 3.0]


def test_parameters_beside_the_model_are_restored_after_a_probe():
    extra = nn.Parameter(torch.ones(1))
    state = replica_of(Cached(), extra).averaged()
    kept = state.snapshot()
    extra.data.fill_(5.0)
    state.restore(kept)
    assert extra.item() == 1.0


def test_a_parameter_group_added_after_training_began_is_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = torch.optim.AdamW(model[1].parameters())
    replica = Replica([model], [Prepared(optimizer, None, [0.1])])
    replica.averaged()
    replica.check_groups()
    optimizer.add_param_group({"params": list(model[0].parameters())})
    with pytest.raises(UsageError, match="parameter groups changed after the first ctx.epochs.*lr=0"):
        replica.check_groups()


class Colour(enum.Enum):
    RED = 1


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize("odd", [lambda: 1, Colour.RED, deque([1]), Pair(1, 2), np.array([object()]), frozenset()])
def test_state_that_could_not_be_read_back_is_named_by_its_place(odd):
    with pytest.raises(InputError, match=r"local state\['a'\]\[1\]\['b'\]: .* is not allowed"):
        check_plain({"a": [1, {"b": odd}]}, "local state")


@pytest.mark.parametrize(
    "plain",
    [np.float64(1.5), np.int64(3), np.bool_(True), np.arange(3), np.zeros(2, "f2"), {1, 2}, b"x", 1j, None],
)
def test_numpys_numbers_and_arrays_and_plain_values_come_back_as_they_were(plain):
    check_plain({"x": plain}, "state")
    back = from_bytes(to_bytes({"x": plain}))["x"]
    assert type(back) is type(plain)
    assert np.array_equal(back, plain) if isinstance(plain, np.ndarray) else back == plain


class Link:
    def tell(self, event: object) -> None:
        raise AssertionError(f"nothing should have been written: {event}")


class History:
    def __init__(self) -> None:
        self.values: object = [1.0]

    def state_dict(self) -> dict[str, object]:
        return {"values": self.values}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.values = state["values"]


class Extra(nn.Linear):
    odd = False

    def get_extra_state(self) -> object:
        return Colour.RED if self.odd else None

    def set_extra_state(self, state: object) -> None:
        self.odd = state is not None


@pytest.mark.parametrize("place", ["registered", "optimizer", "model"])
def test_state_that_became_unreadable_is_refused_when_the_checkpoint_is_written(place, tmp_path):
    model, history = Extra(2, 1), History()
    replica = replica_of(model)
    replica.registered["history"] = (history, "donor")
    replica.check_registered()
    if place == "registered":
        history.values, named = deque([1.0]), r"ctx.register\('history'\)\['values'\]"
    elif place == "optimizer":
        replica.optimizers[0].optimizer.state[model.weight]["kind"] = Colour.RED
        named = r"local state\['optimizers'\]\[0\]\['state'\]\[0\]\['kind'\]"
    else:
        model.odd, named = True, r"model\['_extra_state'\]"
    writer = ShardWriter("w0", Storage.at(str(tmp_path)), Link())
    try:
        with pytest.raises(InputError, match=named):
            writer.save(Save("000001", everyone=True, final=False), replica, 0)
    finally:
        writer.close()
    assert not list(tmp_path.rglob("*.pt"))


def test_state_that_could_not_be_read_by_a_joiner_is_refused_where_it_is_given():
    replica = replica_of(nn.Linear(2, 1))
    replica.registered["history"] = (history := History(), "donor")
    history.values = deque([1.0])
    network = InProcessNetwork()
    transport = network.connect(1, 0, 1)
    for give in (give_state, give_local_state):
        with pytest.raises(InputError, match="ctx.register"):
            give(transport, 0, False, replica)


def test_frozen_parameters_are_in_the_models_state_and_not_in_the_anchor():
    model = nn.Sequential(nn.Linear(50, 50).requires_grad_(False), nn.Linear(50, 1))
    replica = replica_of(model)
    state = replica.averaged()
    replica.anchor = Anchor(state.parameters, state.dtype, torch.device("cpu"), None, Mean())
    shared = replica.shared_state()
    assert shared["anchor"]["anchor"].numel() == 51
    other = nn.Sequential(nn.Linear(50, 50).requires_grad_(False), nn.Linear(50, 1))
    replica_of(other).load_shared_state(shared)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_anchor_of_a_model_of_which_other_parameters_trained_is_refused_in_words():
    anchors = []
    for frozen in (False, True):
        model = nn.Sequential(nn.Linear(3, 3).requires_grad_(not frozen), nn.Linear(3, 1))
        state = replica_of(model).averaged()
        anchors.append(Anchor(state.parameters, state.dtype, torch.device("cpu"), None, Mean()))
    with pytest.raises(UsageError, match="16 elements of parameters trained; here these are 4"):
        anchors[1].load(anchors[0].state())
