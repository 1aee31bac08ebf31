"""The control slot: its layout follows from the record's fields, and every value survives the trip in float32."""

from dataclasses import fields, replace

import torch

from raysgd_local.control.control_slots import SLOT, Contribution, Control, Flags, HeldOut, decode, encode

SAID = Contribution(
    weight=32.5,
    loss_sum=-1.25,
    steps=3,
    samples=2**24 - 1,
    consumed=2**64 + 2**30 + 48,
    split=2,
    epoch=3,
    stepping=5,
    compute_s=0.5,
    clock_s=0.75,
    lr=0.125,
    lr_decay=0.25,
    lr_settled=2.0,
    scale=65536.0,
    residual=1.5,
    wire_bytes=2**48 - 1,
    scheduler_steps=2**24 + 3,
    checksum=2**47 + 2**24 + 5,
    flags=Flags.LEFT | Flags.YIELD,
    held_out=HeldOut(2, 64, 1.5, -0.5, 0.25),
)


def travelled(said):
    return decode(torch.tensor(encode(said), dtype=torch.float32).tolist())


def test_every_field_survives_the_trip_with_its_type():
    assert len(encode(SAID)) == SLOT
    for field in fields(Contribution):
        assert getattr(SAID, field.name) != field.default, "the test must set every field"
        alone = replace(Contribution(), **{field.name: getattr(SAID, field.name)})
        assert travelled(alone) == alone
        assert type(getattr(travelled(SAID), field.name)) is type(getattr(SAID, field.name))
    assert travelled(SAID) == SAID


def test_slots_of_zeros_add_nothing():
    zeros = torch.zeros(SLOT)
    assert decode((zeros + torch.tensor(encode(SAID))).tolist()) == SAID


def test_flags_that_no_member_of_this_process_has_set_together_are_read():
    place = next(
        i for i, (a, b) in enumerate(zip(encode(SAID), encode(Contribution()), strict=True)) if a == 33.0 != b
    )
    for number in range(2 * max(Flags)):
        slot = encode(Contribution())
        slot[place] = float(number)
        assert int(decode(slot).flags) == number


def test_a_member_whose_last_step_waits_for_a_later_round_has_not_come_to_its_lists_end():
    within = Contribution(steps=1, stepping=2)
    last = Contribution(steps=1, samples=4, consumed=4, stepping=1, flags=Flags.EXHAUSTED | Flags.HOLDS)
    (_, waits) = Control((within, last)).in_step.members
    assert (waits.consumed, waits.flags) == (0, Flags.HOLDS | Flags.WAITS)
