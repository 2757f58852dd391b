"""Durations <-> samples, here and nowhere else."""


def ms_to_samples(duration_ms: float, sampling_frequency: float) -> int:
    """Nearest number of samples in `duration_ms` milliseconds at `sampling_frequency` Hz."""
    return round(duration_ms * sampling_frequency / 1000.0)


def s_to_samples(duration_s: float, sampling_frequency: float) -> int:
    """Nearest number of samples in `duration_s` seconds at `sampling_frequency` Hz."""
    return round(duration_s * sampling_frequency)


def tolerance_to_samples(tolerance_ms: float, sampling_frequency: float) -> int:
    """Matching tolerance in samples, truncated as SpikeInterface does (compare_two_sorters)."""
    return int(tolerance_ms / 1000.0 * sampling_frequency)
