"""Klusters and NeuroScope: for each group of channels .clu, .res, .fet and .spk, and one .xml with the parameters.

The formats: klusters.sourceforge.net/UserManual/data-files.html and parameter_files.html.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from xml.etree import ElementTree as xml

import numpy as np

from spikecrsae.data.sorting import SortingData
from spikecrsae.data.waveforms import (
    N_COMPONENTS,
    Signal,
    channel_groups,
    features,
    half_window,
    peak_channels,
    used_channels,
    waveforms,
)

logger = logging.getLogger(__name__)

#: Clusters 0 and 1 mean artefacts and multi-unit activity in these programs; our unit k is cluster k + 2.
FIRST_CLUSTER = 2
#: Largest stored number: a little is left to the limit of 16 bits.
_FULL_SCALE = 32_000
_AMPLIFICATION = 1000


def klusters_files(sorting: SortingData, base: str, signal: Signal | None) -> dict[str, Iterable[bytes]]:
    """The files, name -> pieces of content; base stands before the endings, whose numbers are the groups, from 1.

    Without the recording (`signal` None) there is no .fet and no .spk; NeuroScope shows the clusters, Klusters needs them.
    """
    groups, used = channel_groups(sorting), used_channels(sorting)
    step = _step(sorting)
    files: dict[str, Iterable[bytes]] = {f"{base}.xml": [_parameters(sorting, used, step)]}
    components = None if signal is None else features(sorting, signal)
    for number, group in enumerate(np.unique(groups[used]), 1):
        mine = np.flatnonzero((groups[peak_channels(sorting)] == group)[sorting.unit_rows])
        spikes, channels = sorting.spikes[mine], np.flatnonzero(groups[used] == group)
        clusters = spikes["unit"] + FIRST_CLUSTER
        files[f"{base}.clu.{number}"] = [_lines([len(np.unique(clusters)), *clusters])]
        files[f"{base}.res.{number}"] = [_lines(spikes["sample"])]
        if signal is not None and components is not None:
            files[f"{base}.fet.{number}"] = [_features(components[mine][:, :, channels], spikes["sample"])]
            files[f"{base}.spk.{number}"] = _waveforms(sorting, signal, mine, channels, step)
    return files


def _lines(numbers: Iterable[int]) -> bytes:
    return "".join(f"{number}\n" for number in numbers).encode()


def _step(sorting: SortingData) -> float:
    """Value of one stored number, in the sorting's amplitude_unit: 1 where waveforms fit into 16 bits so, as ADC counts do."""
    largest = 3 * float(np.abs(sorting.templates).max(initial=0))
    return 1.0 if sorting.amplitude_unit == "ADC" and largest < _FULL_SCALE else max(largest, 1e-3) / _FULL_SCALE


def _features(components: np.ndarray, samples: np.ndarray) -> bytes:
    """Rows of whole numbers: the components (n, n_components, n_channels), channel by channel, then the sample."""
    rows = components.transpose(0, 2, 1).reshape(len(components), N_COMPONENTS * components.shape[2])
    scale = _FULL_SCALE / max(np.abs(rows).max(initial=0), 1e-12)
    table = np.column_stack([np.round(rows * scale).astype(np.int64), samples])
    return (f"{table.shape[1]}\n" + "".join(" ".join(map(str, row)) + "\n" for row in table.tolist())).encode()


def _waveforms(sorting: SortingData, signal: Signal, mine: np.ndarray, channels: np.ndarray, step: float) -> Iterable[bytes]:
    """The waveforms of the spikes in rows `mine`, 16 bits a number, all channels of a sample together."""
    for rows, windows in waveforms(sorting, signal):
        chosen = windows[mine[(mine >= rows.start) & (mine < rows.stop)] - rows.start][:, :, channels]
        yield np.clip(np.round(chosen / step), -_FULL_SCALE, _FULL_SCALE).astype("<i2").tobytes()


def _parameters(sorting: SortingData, used: np.ndarray, step: float) -> bytes:
    """The .xml: what Klusters, NeuroScope and ndManager need to know."""
    groups, half = channel_groups(sorting), half_window(sorting)
    microvolts = step if sorting.amplitude_unit == "uV" else 1.0
    root = xml.Element("parameters", version="1.0", creator="spikecrsae")
    facts = {
        "nBits": 16,
        "nChannels": sorting.n_channels,
        "samplingRate": f"{sorting.sampling_frequency:.10g}",
        "voltageRange": f"{microvolts * 1e-6 * 2**16 * _AMPLIFICATION:.10g}",
        "amplification": _AMPLIFICATION,
        "offset": 0,
    }
    _add(xml.SubElement(root, "acquisitionSystem"), facts)
    anatomical = xml.SubElement(xml.SubElement(root, "anatomicalDescription"), "channelGroups")
    detection = xml.SubElement(xml.SubElement(root, "spikeDetection"), "channelGroups")
    for group in np.unique(groups):
        element = xml.SubElement(anatomical, "group")
        for channel in np.flatnonzero(groups == group):
            xml.SubElement(element, "channel", skip=str(int(channel not in used))).text = str(channel)
    for group in np.unique(groups[used]):
        element = xml.SubElement(detection, "group")
        channels = xml.SubElement(element, "channels")
        for channel in used[groups[used] == group]:
            xml.SubElement(channels, "channel").text = str(channel)
        _add(element, {"nSamples": 2 * half, "peakSampleIndex": half, "nFeatures": N_COMPONENTS})
    xml.indent(root)
    return xml.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _add(element: xml.Element, facts: dict) -> None:
    for name, value in facts.items():
        xml.SubElement(element, name).text = str(value)
