"""Sorting: what the public functions return, with spike times in seconds, tables, and conversions to other packages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikecrsae.api.arguments import checked
from spikecrsae.api.messages import speaks_python
from spikecrsae.data.sorting import SortingData
from spikecrsae.errors import UsageError
from spikecrsae.results.tables import spike_columns, unit_columns
from spikecrsae.system.text import counted

if TYPE_CHECKING:
    import neo
    import numpy.typing as npt
    import pynapple


class Sorting:
    """Units and spikes of one recording.

    data: all arrays, as the program itself uses them (spikecrsae.data.sorting). run: what run.json records of the run, empty
    where the spikes come from no run. model: the model file that `apply` needs, or its content; None where there is none.
    """

    def __init__(
        self, data: SortingData, run: Mapping[str, Any] | None = None, model: Path | dict[str, Any] | None = None
    ) -> None:
        self.data = data
        self.run: dict[str, Any] = dict(run or {})
        self.model = model

    def __repr__(self) -> str:
        units, spikes = counted(self.n_units, "unit"), counted(len(self.data.spikes), "spike")
        return f"<Sorting: {units}, {spikes} in {self.data.sorted_s:.6g} s on {counted(self.data.n_channels, 'channel')}>"

    @property
    def unit_ids(self) -> list[int]:
        """Numbers of the units."""
        return [int(unit) for unit in self.data.unit_ids]

    @property
    def n_units(self) -> int:
        """Number of units."""
        return self.data.n_units

    @property
    def sampling_frequency(self) -> float:
        """Samples per second, Hz."""
        return self.data.sampling_frequency

    @property
    def duration_s(self) -> float:
        """Length of the recording in seconds."""
        return self.data.duration_s

    @property
    def templates(self) -> npt.NDArray[np.float32]:
        """Template of each unit, (n_units, n_channels, n_times), high-pass filtered, in the recording's unit (uV)."""
        return self.data.templates

    @property
    def warnings(self) -> tuple[str, ...]:
        """What looked wrong about the recording or the run, one sentence each."""
        return tuple(self.run.get("warnings", ()))

    def spike_samples(self, unit: int) -> npt.NDArray[np.int64]:
        """Samples of a unit's spikes, ascending. Raises UsageError for a unit that does not exist."""
        if unit not in self.data.unit_ids:
            raise UsageError(f"unit {unit!r} does not exist; the units are {', '.join(map(str, self.unit_ids)) or 'none'}.")
        return self.data.spike_samples(unit)

    def spike_times(self, unit: int) -> npt.NDArray[np.float64]:
        """Times of a unit's spikes in seconds on the recording's own clock, ascending. Raises UsageError as spike_samples."""
        return self.data.times_s(self.spike_samples(unit))

    @property
    def spikes(self) -> Any:
        """Table of the spikes, with the columns of spikes.csv: a pandas DataFrame, without pandas a structured array."""
        return _table(spike_columns(self.data))

    @property
    def units(self) -> Any:
        """Table of the units, with the columns of units.csv: a pandas DataFrame whose index is the unit, without pandas a
        structured array."""
        return _table(unit_columns(self.data), index="unit")

    def to_pynapple(self) -> pynapple.TsGroup:
        """A pynapple TsGroup with the columns of units.csv as metadata; its time support is the part of the recording that
        was sorted.

        Raises UsageError where pynapple is not installed.
        """
        try:
            import pynapple
        except ImportError as error:
            raise UsageError("pynapple is not installed; install it with pip install pynapple.") from error
        edges = self.data.sorted_intervals_s
        columns = unit_columns(self.data)
        del columns["unit"]
        return pynapple.TsGroup(
            {unit: pynapple.Ts(self.spike_times(unit)) for unit in self.unit_ids},
            time_support=pynapple.IntervalSet(edges),
            metadata=columns,
        )

    def to_neo(self) -> neo.Block:
        """A neo Block with one Segment and a SpikeTrain for each unit, annotated with the columns of units.csv."""
        from spikecrsae.exports.neo import neo_block

        return neo_block(self.data)

    @speaks_python
    @checked()
    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the same result folder as the command line: sorting.h5, the tables, the report and the model. Return its
        path.

        Raises OutputError where the folder exists, unless it is an earlier result and overwrite is True.
        """
        from spikecrsae.report.html import report_html
        from spikecrsae.results.folder import MODEL, REPORT, ResultFolder
        from spikecrsae.results.model_file import load_checkpoint, save_checkpoint

        model = load_checkpoint(self.model) if isinstance(self.model, Path) else self.model
        page = report_html(self.data, self.run).encode()
        result = ResultFolder(folder)
        with result.lock(), result.replacing(overwrite) as work:
            if model is not None:
                save_checkpoint(model, work.path / MODEL)
            work.write(self.data, self.run, files={REPORT: page})
        return result.path


def _table(columns: dict[str, np.ndarray], index: str | None = None) -> Any:
    """Columns of one length as a data frame, or without pandas as a structured array."""
    try:
        import pandas
    except ImportError:
        arrays = [np.asarray(values) for values in columns.values()]
        table = np.empty(len(arrays[0]), [(name, array.dtype) for name, array in zip(columns, arrays, strict=True)])
        for name, array in zip(columns, arrays, strict=True):
            table[name] = array
        return table
    frame = pandas.DataFrame(columns)
    return frame if index is None else frame.set_index(index)
