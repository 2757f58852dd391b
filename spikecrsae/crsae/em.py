"""Training by EM: encode, then maximise, alternately."""

from __future__ import annotations

from typing import Any

import numpy as np

from spikecrsae.crsae.model import CRsAE
from spikecrsae.csc.pursuit import Effort
from spikecrsae.data.spikes import Spikes

#: The effort of an E-step: which other unit fits a spike best is not asked.
E_STEP = Effort(n_sweeps=2, with_rivals=False)


def expectation_maximisation(
    signal: np.ndarray | Any,
    model: CRsAE,
    n_rounds: int,
    n_positions: int | np.ndarray | None = None,
    spikes: Spikes | None = None,
    level: np.ndarray | None = None,
    near: Spikes | None = None,
) -> tuple[CRsAE, Spikes]:
    """So many rounds of encoding and maximising; ends with the spikes of the last model.

    signal: (n_channels, n_samples), or what `CRsAE.seen` makes of it. n_positions: see CRsAE.maximise. spikes: those of the
    given model, or nearly, where they are known. level (n_samples,), near: see CRsAE.encode; every encoding goes on from the
    spikes of the one before.
    """
    seen = model.seen(signal) if isinstance(signal, np.ndarray) else signal
    for _ in range(n_rounds):
        found = model.encode(seen, E_STEP, level, near) if spikes is None else spikes
        model, spikes, near = model.maximise(seen.signal, found, n_positions), None, found
    return model, model.encode(seen, E_STEP, level, near) if spikes is None else spikes
