"""Files made to do harm: refused in one line, within bounded memory, with nothing run and nothing written elsewhere."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import h5py
import numpy as np
import pytest
from helpers import hostile_files as hostile
from helpers import sortings as made_by_hand
from helpers.command_line import PATIENCE_S, refused, spikecrsae

from spikecrsae.config import load_config
from spikecrsae.errors import InputError, OutputError, SpikeCRsAEError, UsageError
from spikecrsae.readers import open_recording, read_truth
from spikecrsae.readers.geometry import read_probe
from spikecrsae.results.folder import ResultFolder, read_sorting
from spikecrsae.results.model_file import load_checkpoint, save_checkpoint
from spikecrsae.run.batch import find_recordings
from spikecrsae.run.curated import read_curated
from spikecrsae.run.rerun import Record

FS = hostile.FS
#: What a file of a few megabytes may take at most, above what the program has before, in MB.
MOST_MB = 600


@pytest.mark.slow
def test_hdf5_files_are_refused_within_bounded_memory(tmp_path):
    """All of them in one process whose address space ends soon after what it has before."""
    for name, (write, _) in hostile.HDF5.items():
        (tmp_path / name).mkdir()
        write(tmp_path / name / "x.h5")
    code = (
        "import json, resource, sys\n"
        "from click.testing import CliRunner\n"
        "from spikecrsae.cli.main import cli\n"
        "run = lambda *words: CliRunner().invoke(cli, list(words), prog_name='spikecrsae')\n"
        "run('info', sys.argv[1])\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "most = pages * resource.getpagesize() + int(sys.argv[2]) * 2**20\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "said = [run('info', name) for name in sys.argv[3:]]\n"
        "print(json.dumps([(one.exit_code, one.stderr) for one in said]))\n"
    )
    good = hostile.traces(tmp_path / "good.h5")
    words = [str(good), str(MOST_MB), *(str(tmp_path / name / "x.h5") for name in hostile.HDF5)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    for (name, (_, word)), (exit_code, said) in zip(hostile.HDF5.items(), json.loads(done.stdout), strict=True):
        assert exit_code == 3, f"{name}: {said}"
        assert word in said, f"{name}: {said}"
        assert len(said.splitlines()) == 1, f"{name}: {said}"


@pytest.mark.parametrize("name", ["external link", "virtual dataset", "deep groups", "positions of terabytes"])
def test_sort_and_truth_refuse_them_too(tmp_path, name):
    write, word = hostile.HDF5[name]
    write(tmp_path / "x.h5")
    refused(spikecrsae("sort", tmp_path / "x.h5"), word)
    assert not (tmp_path / "x.h5.sorted").exists()
    with pytest.raises(InputError):
        read_truth(tmp_path / "x.h5", FS)


def test_an_honest_file_with_links_inside_and_chunks_that_were_never_written_is_read(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data/raw", (30_000, 4), np.int16, chunks=(10_000, 4), compression="gzip")
        file["data/raw"][:20_000] = hostile.noise(20_000, 4)
        file["traces"] = h5py.SoftLink("/data/raw")
        file["same"] = file["data/raw"]
        file.attrs["fs"] = FS
    recording = open_recording(path)
    assert recording.n_samples == 30_000
    assert np.array_equal(recording.raw(0, 20_000), hostile.noise(20_000, 4))
    recording.close()


def test_texts_that_share_one_place_in_the_file_are_counted(tmp_path):
    """Every row of a table may name the same long text, of which the file holds one."""
    path = tmp_path / "x.nwb"
    hostile.nwb_of_terabytes(path)
    with h5py.File(path, "a") as file:
        del file["acquisition/Raw/data"]
        file["acquisition/Raw/data"] = np.zeros((100, 2000), np.int16)
        file["acquisition/Raw/electrodes"] = np.arange(2000)
        table = file.create_group("general/extracellular_ephys/electrodes")
        table["id"] = np.arange(2000)
        table.create_dataset("group_name", (2000,), h5py.string_dtype(), fillvalue="a" * 60_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="longer than the file"):
        open_recording(path, axis=0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 100 * 1024


@pytest.mark.parametrize("write", hostile.NPY, ids=lambda f: f.__name__)
def test_no_array_is_unpickled(tmp_path, write):
    sentinel = tmp_path / "boom"
    write(tmp_path / "times.npy", sentinel)
    with pytest.raises(InputError, match="damaged"):
        read_truth(tmp_path / "times.npy", FS)
    made = made_by_hand.write_sorted(tmp_path)
    folder = made_by_hand.exported(made, "phy")
    write(folder / "spike_clusters.npy", sentinel)
    with pytest.raises(InputError, match="damaged"):
        read_curated(folder)
    assert not sentinel.exists()


@pytest.mark.parametrize("write", hostile.MODELS, ids=lambda f: f.__name__)
def test_no_hostile_model_is_loaded(tmp_path, write):
    write(tmp_path / "model.safetensors", tmp_path / "boom")
    run = spikecrsae("apply", tmp_path / "model.safetensors", hostile.traces(tmp_path / "x.h5"))
    refused(run, "is not a model of this program")
    assert not (tmp_path / "boom").exists()


def test_an_honest_model_is_loaded(tmp_path):
    save_checkpoint({"x": np.arange(5.0), "deep": {"y": np.zeros((2, 0))}, "text": "a"}, tmp_path / "model.safetensors")
    loaded = load_checkpoint(tmp_path / "model.safetensors")
    assert np.array_equal(loaded["x"], np.arange(5.0))
    assert loaded["deep"]["y"].shape == (2, 0)


def test_python_beside_a_phy_folder_is_not_run(tmp_path):
    """params.py and .prb are Python, ops.npy a pickle in Kilosort's folders."""
    made, sentinel = made_by_hand.write_sorted(tmp_path), tmp_path / "boom"
    folder = made_by_hand.exported(made, "phy")
    program = f"import os\nos.mkdir({str(sentinel)!r})\nsample_rate = 20000.0  # Hz\n"
    (folder / "params.py").write_text(program)
    hostile.npy_with_objects(folder / "ops.npy", sentinel)
    trains = read_truth(folder, FS)
    assert sum(map(len, trains.values())) == len(made.sorting.spikes)
    assert read_curated(folder)[0].n_units == made.sorting.n_units
    (tmp_path / "x.prb").write_text(program + "channel_groups = {0: {'channels': [__import__('os').getpid()]}}\n")
    with pytest.raises(InputError, match="nothing is run"):
        read_probe(tmp_path / "x.prb")
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, '{"probes": ' + "[" * 200_000, "channel_groups = " + "(" * 5000, "channel_groups = " + "-" * 200_000 + "1",
     "channel_groups = " + "1+" * 100_000 + "1", " " * (17 * 2**20), "\0", "channel_groups = {0: {'channels': range(99999999)}}"],
    ids=["list", "JSON", "brackets", "minus", "sum", "17 MB", "zero", "range"],
)  # fmt: skip
def test_probes_that_would_choke_a_parser(tmp_path, text):
    (tmp_path / "probe").write_text(text)
    with pytest.raises(InputError, match="probe"):
        read_probe(tmp_path / "probe")


@pytest.mark.slow
def test_a_probe_with_many_contacts_is_read_at_once(tmp_path):
    n = 50_000
    contacts = {"contact_positions": [[0, k] for k in range(n)], "device_channel_indices": list(range(n)), "si_units": "um"}
    (tmp_path / "probe.json").write_text(json.dumps({"probes": [contacts]}))
    assert len(read_probe(tmp_path / "probe.json").positions) == n


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "9" * 5000, "#" * (2 * 2**20), "\xff"])
def test_configurations_and_side_files_that_would_choke_a_parser(tmp_path, text):
    (tmp_path / "c.toml").write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=r"c\.toml"):
        load_config(tmp_path / "c.toml")
    recording = hostile.traces(tmp_path / "x.h5")
    (tmp_path / "x.h5.toml").write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match="side file"):
        open_recording(recording)


def test_tables_and_records_that_would_choke_a_parser(tmp_path):
    made = made_by_hand.write_sorted(tmp_path)
    folder = made_by_hand.exported(made, "phy")
    (folder / "cluster_group.tsv").write_text("cluster_id\tgroup\n0\t" + "x" * 200_000 + "\n")
    with pytest.raises(InputError, match=r"cluster_group\.tsv"):
        read_curated(folder)
    (tmp_path / "truth.csv").write_text("sample,unit\n1,'" + "x" * 200_000 + "\n")
    with pytest.raises(InputError, match=r"truth\.csv"):
        read_truth(tmp_path / "truth.csv", FS)
    (tmp_path / "run.json").write_text("[" * 200_000)
    with pytest.raises(InputError, match=r"run\.json"):
        Record.read(tmp_path)
    (made.folder / "manifest.json").write_text("[" * 200_000)
    with pytest.raises(OutputError, match=r"manifest\.json"):
        ResultFolder(made.folder).prepare(overwrite=True)


def test_an_xml_that_grows_is_refused(tmp_path):
    """Entities that name entities, in the session file of a NeuroScope recording."""
    entities = "".join(f'<!ENTITY e{k} "{f"&e{k - 1};" * 10}">' for k in range(1, 12))
    (tmp_path / "x.xml").write_text(f'<!DOCTYPE a [<!ENTITY e0 "lol">{entities}]><parameters><a>&e11;</a></parameters>')
    (tmp_path / "x.dat").write_bytes(hostile.noise().tobytes())
    refused(spikecrsae("info", tmp_path / "x.dat"), "cannot be read by neo")


@pytest.mark.parametrize("name", ["pipe.h5", "pipe.dat", "zero.dat"])
def test_pipes_and_devices_are_no_recordings(tmp_path, name):
    os.symlink("/dev/zero", tmp_path / name) if name == "zero.dat" else os.mkfifo(tmp_path / name)
    words = ("--n-channels", 1, "--dtype", "int16", "--sampling-frequency", FS) if name.endswith("dat") else ()
    refused(spikecrsae("info", tmp_path / name, *words), "is a device" if name == "zero.dat" else "is a pipe")


def test_a_raw_file_with_a_hole_of_terabytes_is_no_recording(tmp_path):
    with (tmp_path / "x.dat").open("wb") as file:
        file.truncate(2**43)
    result = spikecrsae("info", tmp_path / "x.dat", "--n-channels", 1, "--dtype", "int16", "--sampling-frequency", FS)
    refused(result, "lasts less than a year")


def test_folders_that_go_round_in_a_circle(tmp_path):
    """Links to themselves make 2^40 ways through a folder; each real folder is looked at once."""
    (tmp_path / "deep" / "inner").mkdir(parents=True)
    hostile.traces(tmp_path / "deep" / "inner" / "x.h5")
    for name in "abcdefgh":
        (tmp_path / "deep" / name).symlink_to(tmp_path / "deep")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "deep" / "inner")
    assert find_recordings([f"{tmp_path}/**/*.h5"]) == [tmp_path / "elsewhere" / "x.h5"]
    assert len(find_recordings([f"{tmp_path}/deep/**/inner/*.h5"])) == 1
    refused(spikecrsae("info", tmp_path / "deep"), "no reader knows this folder")


def test_a_made_up_sorting_is_refused(tmp_path):
    made = made_by_hand.write_sorted(tmp_path)
    with h5py.File(made.folder / "sorting.h5", "a") as file:
        del file["templates"]
        file.create_dataset("templates", (2**20, 2**20, 40), np.float32, chunks=(1, 1, 40))
    with pytest.raises(SpikeCRsAEError, match=r"sorting\.h5"):
        read_sorting(made.folder)
    with pytest.raises(InputError, match="declares"):
        read_sorting(made.folder / "sorting.h5")
