"""Seeds derived from one seed, so that nothing that should differ shares a stream."""

from __future__ import annotations

import hashlib


def derived_seed(seed: int, *purpose: str | int) -> int:
    """Return a seed in [0, 2**31) that is a function of `seed` and of what it is for."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def trial_seed(seed: int, index: int) -> int:
    """Return the seed of the search's trial number `index`: the same in every arm, so that arms pair up."""
    return derived_seed(seed, "trial", index)


def repeat_seed(seed: int, repeat: int) -> int:
    """Return what the seeds of a search derive from: `seed` itself for the first, another for each repetition."""
    return seed if repeat == 1 else derived_seed(seed, "repeat", repeat)


def confirmation_seeds(seed: int, count: int) -> tuple[int, ...]:
    """Return `count` seeds that no trial of the search used: the same in every arm."""
    return tuple(derived_seed(seed, "confirm", index) for index in range(count))
