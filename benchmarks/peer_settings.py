"""What the filters of the peers are called with, beside the strength that is tuned. Needs no torch."""

from __future__ import annotations

from typing import Any

SETTINGS: dict[str, dict[str, Any]] = {
    "gaussian": {"truncate": 4.0},
    "bilateral": {"sigma_spatial": 2, "bins": 10_000},
    # To convergence: its own test of that, by the energy of two steps that follow each other, stops several dB early on
    # a step edge. After so many steps as here, 16,000 change 0.06 dB there, and 0.002 dB on photographs.
    "total-variation": {"eps": 0.0, "max_num_iter": 2000},
    "nonlocal-means": {"patch_size": 5, "patch_distance": 6, "fast_mode": True},
}
"""Of scikit-image's functions, by peer."""

UNSAID = {**SETTINGS, "total-variation": {"eps": 2e-4, "max_num_iter": 200}}
"""What the first records were made with, which name none."""


def options_of(peer: str) -> dict[str, Any]:
    """What a run names: the settings that differ from those of the first records, whose identities stay."""
    unsaid = UNSAID.get(peer, {})
    return {name: value for name, value in SETTINGS.get(peer, {}).items() if unsaid.get(name) != value}
