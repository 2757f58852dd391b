"""Recordings whose spikes are known, from the generative model y_m = sum_c h_(c,m) * x_c + v_m (Eqs. 1-4)."""

from spikecrsae.simulate.distance import match_templates, perturb_templates, template_error_db
from spikecrsae.simulate.generate import Simulation, simulate
from spikecrsae.simulate.paper import PaperSimulation, paper_windows
from spikecrsae.simulate.settings import SimulationConfig, preset_config
from spikecrsae.simulate.write import write_simulation

__all__ = [
    "PaperSimulation",
    "Simulation",
    "SimulationConfig",
    "match_templates",
    "paper_windows",
    "perturb_templates",
    "preset_config",
    "simulate",
    "template_error_db",
    "write_simulation",
]
