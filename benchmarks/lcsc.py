"""LCSC, the paper's counterexample (Sreter and Giryes, ICASSP 2018): an auto-encoder whose decoder is not tied to its encoder.

The encoder takes three steps of ISTA with an analysis and a synthesis filter of its own for each unit; the decoder has other
filters. They and a threshold for each unit minimise the reconstruction loss, and nothing else.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from spikecrsae.csc.operator import analysis, synthesis
from spikecrsae.csc.step_size import lipschitz_bound

#: Of the steps 1e-3, 3e-3, 1e-2 and 3e-2 the one of the lowest held-out loss: `python benchmarks/lcsc.py`.
LEARNING_RATE = 1e-2
EPOCHS, BATCH_SIZE, HELD_OUT = 60, 64, 0.1
N_STEPS = 3


class LCSC(nn.Module):
    """Start from templates (n_units, n_channels, n_times) of unit norm and thresholds of lam noise levels (ISTA's lambda).

    Signals are in units of the noise. two_sided: codes of either sign, as published; else they are never negative.
    """

    def __init__(self, atoms: np.ndarray, lam: float, two_sided: bool = True) -> None:
        super().__init__()
        self.lipschitz, self.two_sided = lipschitz_bound(atoms), two_sided
        start = torch.tensor(atoms, dtype=torch.float32)
        self.analysis = nn.Parameter(start / self.lipschitz)
        self.synthesis = nn.Parameter(start.clone())
        self.decoder = nn.Parameter(start.clone())
        self.threshold = nn.Parameter(torch.full((len(atoms),), lam / self.lipschitz))

    @property
    def lam(self) -> np.ndarray:
        """The thresholds as ISTA's lambda (n_units,), in units of 1 / sigma: comparable with CRsAE's."""
        return self.lipschitz * self.threshold.detach().numpy().astype(np.float64)

    def forward(self, signal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the reconstruction and the codes of signal (n_windows, n_channels, n_samples)."""
        codes = self._shrunk(analysis(signal, self.analysis))
        for _ in range(N_STEPS - 1):
            rest = signal - synthesis(codes, self.synthesis)
            codes = self._shrunk(codes + analysis(rest, self.analysis))
        return synthesis(codes, self.decoder), codes

    def _shrunk(self, codes: torch.Tensor) -> torch.Tensor:
        above = torch.relu(codes - self.threshold[:, None])
        return above - torch.relu(-codes - self.threshold[:, None]) if self.two_sided else above


@dataclass(frozen=True)
class Trained:
    """filters (n_units, n_channels, n_times): the decoder's, of unit norm. lam (n_units,): the thresholds, see LCSC.lam. loss: the
    residual's variance in units of the noise's, on held-out windows. n_codes: not zero, per window. course: the held-out loss
    after every epoch."""

    filters: np.ndarray
    lam: np.ndarray
    loss: float
    n_codes: float
    course: list[float]


def train_lcsc(
    windows: np.ndarray,
    atoms: np.ndarray,
    seed: int,
    learning_rate: float = LEARNING_RATE,
    epochs: int = EPOCHS,
    two_sided: bool = True,
) -> Trained:
    """Train LCSC with Adam on windows (n_windows, n_channels, n_samples), in units of the noise, from atoms (n_units, n_channels,
    n_times) of unit norm; keep the epoch of the lowest held-out loss. The step falls by half a cosine."""
    rng = np.random.default_rng(seed)
    data = torch.from_numpy(np.ascontiguousarray(windows[rng.permutation(len(windows))], np.float32))
    n_held_out = max(1, round(HELD_OUT * len(data)))
    held_out, data = data[:n_held_out], data[n_held_out:]
    n_positions = windows.shape[2] - atoms.shape[2] + 1
    net = LCSC(atoms, float(np.sqrt(2 * np.log(len(atoms) * n_positions))), two_sided)
    adam = torch.optim.Adam(net.parameters(), lr=learning_rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs)
    course, best = [], copy.deepcopy(net)
    for _ in range(epochs):
        for chosen in np.array_split(rng.permutation(len(data)), -(-len(data) // BATCH_SIZE)):
            batch = data[torch.from_numpy(chosen)]
            loss = (batch - net(batch)[0]).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                net.threshold.clamp_(min=0.0)
        decay.step()
        course.append(_measured(net, held_out)[0])
        if course[-1] == min(course):
            best = copy.deepcopy(net)
    filters = best.decoder.detach().numpy().astype(np.float64)
    filters /= np.linalg.norm(filters, axis=(1, 2), keepdims=True)
    return Trained(filters, best.lam, *_measured(best, held_out), course)


@torch.no_grad()
def _measured(net: LCSC, windows: torch.Tensor) -> tuple[float, float]:
    """The mean squared residual of windows, and how many codes of a window are not zero."""
    reconstruction, codes = net(windows)
    return float((windows - reconstruction).square().mean()), float((codes != 0).sum() / len(windows))


def main() -> None:
    from spikecrsae.simulate import paper_windows, perturb_templates

    torch.backends.mkldnn.enabled = False
    simulation = paper_windows(1000, 16.0, 100)
    atoms = perturb_templates(simulation.templates, -3.5, np.random.default_rng(100))
    for rate in (1e-3, 3e-3, 1e-2, 3e-2):
        trained = train_lcsc(simulation.windows / simulation.sigma, atoms, 100, rate)
        print(f"step {rate:g}: held-out loss {trained.loss:.4f}, best epoch {np.argmin(trained.course) + 1}", flush=True)


if __name__ == "__main__":
    main()
