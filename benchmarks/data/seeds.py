"""Seeds of parts of a run."""

from __future__ import annotations

import hashlib


def mixed_seed(*numbers: int) -> int:
    """One seed of several numbers, so that neighbours share nothing."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest(), "little")
