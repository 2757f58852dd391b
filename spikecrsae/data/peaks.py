"""Where a template stands out of the noise most: its peak channel, the spike's sample, its amplitude."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Peaks:
    """Of templates: the channel and the sample of the deflection that is largest in units of its channel's noise, and its absolute
    value in the recording's unit, (n_units,) each."""

    channel: np.ndarray
    index: np.ndarray
    size: np.ndarray

    @classmethod
    def of(cls, templates: np.ndarray, noise_level: np.ndarray | None = None) -> Peaks:
        """templates (n_units, n_channels, n_times); noise_level (n_channels,): a channel that is only loud decides nothing. Where no
        noise level is known, all channels count alike; one without a level (NaN) beside others that have one does not count."""
        n_units, n_channels, n_times = templates.shape
        if not templates.size:
            nowhere = np.zeros(n_units, np.int64)
            return cls(nowhere, nowhere, np.zeros(n_units))
        weight = np.ones(n_channels)
        if noise_level is not None:
            level = np.asarray(noise_level, np.float64)
            known = np.isfinite(level) & (level > 0)
            if known.any():
                weight = np.divide(1.0, level, out=np.zeros(n_channels), where=known)
        deflection = np.abs(templates)
        at = (deflection * weight[:, None]).reshape(n_units, -1).argmax(axis=1)
        channel, index = np.divmod(at, n_times)
        return cls(channel, index, deflection[np.arange(n_units), channel, index])
