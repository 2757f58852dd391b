#!/usr/bin/env python3
"""Recordings as laboratories have them, small and with truth: python real_life_recordings.py CASE OUT.h5 [--seed N] [--level X].

Made by a generator of its own, independent of the program's simulator and of SpikeInterface's. numpy and h5py only.
`python real_life_recordings.py --list` names the cases and what each level means. Truth is in truth/<name>/spike_samples; where it matters,
`loud` (n, 2) holds the loud stretches and `pulses` (n,) the stimulus samples.
"""
import argparse

import h5py
import numpy as np

FS = 20000
GAINS = [[1, .6, .3, .2], [.2, 1, .5, .4], [.3, .2, 1, .7], [.8, .3, .2, 1], [.5, .9, .6, .2]]
WIDTHS, TAILS = [1., .8, 1.25, 1.5, .9], [.4, .3, .5, .6, .2]


def noise(rng, n, n_channels, fs=FS, uv=10., common=.4):
    shape = np.sqrt(1 / (1 + (np.fft.rfftfreq(n, 1 / fs) / 1500.) ** 1.4) + .05).astype(np.float32)
    own = np.fft.irfft(np.fft.rfft(rng.standard_normal((n, n_channels)).astype(np.float32), axis=0) * shape[:, None], n=n, axis=0)
    shared = np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * shape, n=n)
    return (uv * (np.sqrt(1 - common) * own / own.std(0) + np.sqrt(common) * (shared / shared.std())[:, None])).astype(np.float32)


def train(rng, rate, duration, refractory=.0025):
    mean = max(1 / rate - refractory, 1e-5)
    times = np.cumsum(refractory + rng.exponential(mean, int(duration * rate * 1.5 + 60)))
    return times[times < duration]


def wave(ms, width=1., tail=.4, sign=-1):
    return sign * (np.exp(-(ms / (.13 * width)) ** 2) - tail * np.exp(-((ms - .45 * width) / (.28 * width)) ** 2)
                   - .12 * np.exp(-((ms + .35 * width) / (.2 * width)) ** 2))


def add(x, times, gains, width=1., tail=.4, amplitudes=None, shape=None, before=1.5, after=3., fs=FS):
    """Add spikes at times (s, below one sample too); returns the samples of those that fit."""
    b, a, samples = int(before * fs / 1e3), int(after * fs / 1e3), []
    for i, time in enumerate(times):
        centre = time * fs
        k = int(round(centre))
        if k < b + 1 or k + a + 1 >= len(x):
            continue
        ms = (np.arange(k - b, k + a) - centre) / fs * 1e3
        w = shape(ms) if shape else wave(ms, width, tail)
        x[k - b:k + a] += np.outer(w * (1. if amplitudes is None else amplitudes[i]), gains).astype(np.float32)
        samples.append(k)
    return np.array(samples, np.int64)


def standard(seed, duration=60, n_channels=4, fs=FS):
    """Four neurons of 140, 110, 90 and 75 uV at 8, 5, 15 and 3 Hz in 10 uV of noise."""
    rng = np.random.default_rng(seed)
    x, truth = noise(rng, int(fs * duration), n_channels, fs), {}
    for i, (uv, rate) in enumerate(zip((140, 110, 90, 75), (8, 5, 15, 3))):
        truth[f"n{i}"] = add(x, train(rng, rate, duration), uv * np.resize(GAINS[i], n_channels), WIDTHS[i], TAILS[i], fs=fs)
    return rng, x, truth


def pulse(ms):
    return np.where((ms >= 0) & (ms < .2), 1., np.where((ms >= .2) & (ms < .4), -1., np.where(ms >= .4, .15 * np.exp(-(ms - .4)), 0)))


def clean(seed, level):
    """the control"""
    _, x, truth = standard(seed)
    return x, truth, {}


def loud_stretches(seed, level):
    """six stretches of 1 s with `level` times the noise (3, 6): chewing, grooming"""
    rng, x, truth = standard(seed)
    starts = np.sort(rng.choice(np.arange(3, 57, 2), 6, replace=False)) * FS
    for k in starts:
        x[k:k + FS] += noise(rng, FS, 4, FS, 10 * np.sqrt(level ** 2 - 1), .6)
    return x, truth, {"loud": np.stack([starts, starts + FS], 1)}


def loud_half(seed, level):
    """noise `level` times as large (2, 3) in the second half"""
    rng, x, truth = standard(seed)
    k = len(x) // 2
    x[k:] += noise(rng, len(x) - k, 4, FS, 10 * np.sqrt(level ** 2 - 1))
    return x, truth, {"loud": np.array([[k, len(x)]])}


def rare(seed, level):
    """300 s; a neuron of 65 uV at 6 Hz and one of 120 uV with `level` spikes (60) of a similar, narrower wave"""
    rng = np.random.default_rng(seed)
    x = noise(rng, FS * 300, 4)
    return x, {"common": add(x, train(rng, 6, 300), 65 * np.array([1, .6, .3, .2]), 1.3),
               "rare": add(x, np.sort(rng.uniform(.5, 299.5, int(level))), 120 * np.array([1, .55, .35, .2]))}, {}


def sparse_wire(seed, level):
    """one wire, 20 min; neurons of 120 and 90 uV at `level` (0.05) and 0.6 times that Hz beside 70 and 55 uV at 3 and 5 Hz"""
    rng = np.random.default_rng(seed)
    x, truth = noise(rng, FS * 1200, 1), {}
    for name, uv, rate, width in (("sparse1", 120, level, 1.), ("sparse2", 90, .6 * level, .8), ("busy1", 70, 3, 1.3), ("busy2", 55, 5, 1.6)):
        truth[name] = add(x, np.sort(rng.uniform(1, 1199, max(10, int(rate * 1200)))) if rate < 1 else train(rng, rate, 1200), np.array([uv]), width)
    return x, truth, {}


def sometimes(seed, level):
    """10 min; three neurons all the time, one that fires only during `level` s (8) at 18 Hz"""
    rng = np.random.default_rng(seed)
    x, truth = noise(rng, FS * 600, 4), {}
    for i, (uv, rate) in enumerate(((140, 4), (110, 3), (90, 6))):
        truth[f"n{i}"] = add(x, train(rng, rate, 600), uv * np.array(GAINS[i]), WIDTHS[i], TAILS[i])
    begin = rng.uniform(100, 500)
    truth["sometimes"] = add(x, begin + train(rng, 18, level), 100 * np.array(GAINS[3]), .9, .5)
    return x, truth, {}


def stimulation(seed, level):
    """a biphasic pulse of 3 mV on all channels, `level` a second (1, 10)"""
    rng, x, truth = standard(seed)
    times = np.arange(.05, 59.9, 1 / level)
    at = add(x, times, 3000 * np.array([1, .9, 1.1, .95]), shape=pulse, after=12, amplitudes=1 + .02 * rng.standard_normal(len(times)))
    return x, truth, {"pulses": at}


def laser(seed, level):
    """a step of `level` uV (250) that decays in 1 ms, at the on and off of a laser, 4 a second, the same on all channels"""
    rng, x, truth = standard(seed)
    times = np.arange(.1, 59.8, .25)
    step = lambda ms: np.where(ms >= 0, np.exp(-ms / .3), 0.)  # noqa: E731
    signs = np.where(np.arange(len(times)) % 2, -1., 1.) * (1 + .03 * rng.standard_normal(len(times)))
    at = add(x, times, level * np.array([1, .95, 1.05, 1]), shape=step, after=5, amplitudes=signs)
    return x, truth, {"pulses": at}


def movement(seed, level):
    """60 bursts of 4 ms of common noise of `level` uV (600): a cable that moves"""
    rng, x, truth = standard(seed)
    begins = (np.sort(rng.uniform(.5, 59, 60)) * FS).astype(int)
    m = int(.004 * FS)
    for k in begins:
        x[k:k + m] += (noise(rng, m, 1, FS, level) * np.hanning(m)[:, None]) * rng.uniform(.8, 1.2, 4)
    return x, truth, {"loud": np.stack([begins, begins + m], 1)}


def complex_spikes(seed, level):
    """Purkinje cell on one wire: 60 Hz simple spikes and `level` Hz (1) complex spikes with spikelets and a pause"""
    rng = np.random.default_rng(seed)
    x = noise(rng, FS * 120, 1)
    cs, ss = train(rng, level, 120, .2), train(rng, 60, 120, .003)
    ss = np.array([s for s in ss if not np.any((s > cs - .003) & (s < cs + .015))])

    def shape(ms):
        return wave(ms, 1.1, .5) + .35 * wave(ms - 2.2, 1., .3) + .3 * wave(ms - 4.4, 1., .3) + .3 * wave(ms - 6.8, 1., .3) + .25 * np.exp(-((ms - 4) / 3.) ** 2)

    return x, {"simple": add(x, ss, np.array([110.])), "complex": add(x, cs, np.array([126.]), shape=shape, after=14)}, {}


def next_day(seed, level):
    """the neurons of `clean` (same seed) a day later, scaled by `level` (0.8) and changed by 8 % per channel; the fourth is gone, one is new"""
    rng = np.random.default_rng(seed + 1000)
    x, truth = noise(rng, FS * 60, 4), {}
    for i, (uv, rate) in enumerate(zip((140, 110, 90), (8, 5, 15))):
        truth[f"n{i}"] = add(x, train(rng, rate, 60), level * uv * np.array(GAINS[i]) * (1 + .08 * rng.standard_normal(4)), WIDTHS[i], TAILS[i])
    truth["new"] = add(x, train(rng, 9, 60), 120 * np.array([.6, .6, .9, .5]), 1.1)
    return x, truth, {}


def step(seed, level):
    """the tetrode moves once, at 40 s of 80: all amplitudes change by a factor `level` (0.8) and 8 % per channel"""
    rng = np.random.default_rng(seed)
    x, truth = noise(rng, FS * 80, 4), {}
    for i, (uv, rate) in enumerate(zip((140, 110, 90), (8, 5, 15))):
        times, gains = train(rng, rate, 80), uv * np.array(GAINS[i])
        parts = [add(x, times[times < 40], gains, WIDTHS[i], TAILS[i]),
                 add(x, times[times >= 40], level * gains * (1 + .08 * rng.standard_normal(4)), WIDTHS[i], TAILS[i])]
        truth[f"n{i}"] = np.concatenate(parts)
    return x, truth, {}


def noisy_reference(seed, level):
    """a reference with `level` uV (60) of noise and spikes of its own, seen on all channels"""
    rng, x, truth = standard(seed)
    r = noise(rng, len(x), 1, FS, level)
    add(r, train(rng, 20, 60), np.array([-200.]), 1.4)
    return x - r, truth, {}


def one_loud_channel(seed, level):
    """channel 2 has `level` times the gain (10) of the others: peak channel, SNR and spike times must not follow it"""
    _, x, truth = standard(seed)
    x[:, 2] *= level
    return x, truth, {}


def noise_channel(seed, level):
    """a fifth channel with nothing but `level` uV (450) of noise"""
    rng, x, truth = standard(seed)
    return np.concatenate([x, noise(rng, len(x), 1, FS, level)], 1), truth, {}


CASES = {f.__name__: (f, default) for f, default in (
    (clean, 1), (loud_stretches, 3), (loud_half, 3), (rare, 60), (sparse_wire, .05), (sometimes, 8), (stimulation, 1), (laser, 250), (movement, 600),
    (complex_spikes, 1), (next_day, .8), (step, .8), (noisy_reference, 60), (one_loud_channel, 10), (noise_channel, 450))}


def write(case, path, seed=0, level=None):
    make, default = CASES[case]
    x, truth, more = make(seed, default if level is None else level)
    with h5py.File(path, "w") as f:
        d = f.create_dataset("traces", data=np.clip(np.round(x / .195), -32768, 32767).astype(np.int16))
        d.attrs.update(sampling_frequency=float(FS), units="uV", gain=.195)
        for name, samples in truth.items():
            f[f"truth/{name}/spike_samples"] = np.sort(samples)
        for name, array in more.items():
            f[name] = np.asarray(array, np.int64)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("case", nargs="?", choices=CASES)
    p.add_argument("out", nargs="?")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--level", type=float)
    p.add_argument("--list", action="store_true")
    a = p.parse_args()
    if a.list or not a.out:
        for name, (make, default) in CASES.items():
            print(f"{name:18s} level {default:g}: {make.__doc__}")
    else:
        write(a.case, a.out, a.seed, a.level)
