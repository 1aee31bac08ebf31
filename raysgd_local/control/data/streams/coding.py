"""Codes for arrays of integers: records that travel with every order must be small."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from raysgd_local.control.data.apportionment import Bools, Ints

_DIGIT = 3  # bits of a value in each half byte; the fourth says that the value goes on


def encode(values: npt.ArrayLike) -> bytes:
    """Return integers from 0 to 2^63 − 1 as half bytes: one for 0 to 7, two for 8 to 63, and so on.

    >>> encode([1, 7, 8]).hex(), decode(encode([1, 7, 8])).tolist()
    ('7118', [1, 7, 8])
    """
    whole = np.asarray(values, dtype=np.int64)
    digits = _digits(whole)
    ends = np.cumsum(digits)
    halves = np.full(int(digits.sum()) + 1, 8, dtype=np.uint8)  # the last is to fill up the last byte
    for place in range(int(digits.max(initial=0))):
        on = digits > place
        goes_on = (digits[on] > place + 1).astype(np.uint8) << _DIGIT
        halves[ends[on] - digits[on] + place] = (whole[on] >> _DIGIT * place & 7).astype(np.uint8) | goes_on
    halves = halves[: len(halves) // 2 * 2]
    return (halves[0::2] | halves[1::2] << 4).tobytes()


def _digits(values: Ints) -> Ints:
    """Return for each value the number of octal digits it needs, at least one."""
    digits = np.ones(len(values), dtype=np.int64)
    left = np.flatnonzero(values >> _DIGIT)
    while len(left):
        digits[left] += 1
        left = left[values[left] >> _DIGIT * digits[left] > 0]
    return digits


def decode(code: bytes) -> Ints:
    """Return the integers of `encode`."""
    packed = np.frombuffer(code, dtype=np.uint8)
    halves = np.stack([packed & 15, packed >> 4], axis=1).ravel().astype(np.int64)
    ends = np.flatnonzero(halves < 8)
    if len(ends) == 0:
        return ends.astype(np.int64)
    halves = halves[: ends[-1] + 1]
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(halves)) - np.repeat(starts, np.diff(ends, prepend=-1))
    values: Ints = np.add.reduceat((halves & 7) << _DIGIT * place, starts)
    return values


def encode_table(values: Ints) -> bytes:
    """Return a table of integers of at least 0 as runs of equal values, or by numbers of its distinct values.

    >>> table = np.array([5] * 1000 + [7])
    >>> len(encode_table(table)), decode_table(encode_table(table)).tolist() == table.tolist()
    (5, True)
    """
    by_runs, by_number = b"r" + _encode_runs(values), b"n" + _encode_numbers(values)
    return by_runs if len(by_runs) <= len(by_number) else by_number


def decode_table(code: bytes) -> Ints:
    """Return the table of `encode_table`; an empty one for no bytes."""
    return _decode_numbers(code[1:]) if code[:1] == b"n" else _decode_runs(code[1:])


def encode_flags(flags: Bools) -> bytes:
    """Return flags as runs or as bits.

    >>> [len(encode_flags(np.arange(8000) % 2 < limit)) for limit in (0, 1)]
    [4, 1009]
    """
    return encode_table(flags.astype(np.int64))


def decode_flags(code: bytes) -> Bools:
    """Return the flags of `encode_flags`."""
    return decode_table(code).astype(bool)


def _encode_runs(values: Ints) -> bytes:
    first = np.flatnonzero(np.diff(values, prepend=-1))
    return encode(np.concatenate([values[first], np.diff(first, append=len(values))]))


def _decode_runs(code: bytes) -> Ints:
    values, lengths = np.split(decode(code), 2)
    return np.repeat(values, lengths)


def _encode_numbers(values: Ints) -> bytes:
    distinct, numbers = np.unique(values, return_inverse=True)
    planes = [np.packbits((numbers >> bit & 1).astype(bool)) for bit in range(_width(len(distinct)))]
    header = encode(np.concatenate([[len(values)], np.diff(distinct, prepend=0)]))
    return len(header).to_bytes(4, "little") + header + b"".join(plane.tobytes() for plane in planes)


def _decode_numbers(code: bytes) -> Ints:
    size = 4 + int.from_bytes(code[:4], "little")
    header = decode(code[4:size])
    count, distinct = int(header[0]), np.cumsum(header[1:])
    planes = np.frombuffer(code[size:], dtype=np.uint8).reshape(_width(len(distinct)), (count + 7) // 8)
    numbers = np.zeros(count, dtype=np.int64)
    for bit, plane in enumerate(planes):
        numbers |= np.unpackbits(plane, count=count).astype(np.int64) << bit
    return distinct[numbers]


def _width(distinct: int) -> int:
    """Number of bits that tell so many values apart."""
    return max(0, distinct - 1).bit_length()
