"""Seeds derived from one seed by hashing, so that different purposes get independent random streams."""

from __future__ import annotations

import hashlib


def derived_seed(seed: int, *purpose: str | int) -> int:
    """Return a seed in [0, 2**31) that is a function of `seed` and `purpose`."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def trial_seed(seed: int, index: int) -> int:
    """Return the seed of search trial `index`; it is the same in every arm, so that trials of arms are paired."""
    return derived_seed(seed, "trial", index)


def repeat_seed(seed: int, repeat: int) -> int:
    """Return the base seed of a repeated search: `seed` itself for the first one."""
    return seed if repeat == 1 else derived_seed(seed, "repeat", repeat)


def confirmation_seeds(seed: int, count: int) -> tuple[int, ...]:
    """Return `count` seeds that no search trial used; they are the same in every arm."""
    return tuple(derived_seed(seed, "confirm", index) for index in range(count))
