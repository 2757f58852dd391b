"""Files made to do harm, for test_hostile.py: each writes one file that a reader must refuse."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import h5py
import numpy as np
from safetensors.numpy import save_file

FS = 20000.0


class Boom:
    """Leaves a file behind where somebody unpickles it."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self):
        return os.mkdir, (str(self.sentinel),)


def noise(n_samples: int = 40_000, n_channels: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(-50, 50, (n_samples, n_channels)).astype(np.int16)


def traces(path: Path, **facts) -> Path:
    with h5py.File(path, "w") as file:
        file["traces"] = noise()
        file["traces"].attrs.update({"sampling_frequency": FS, "units": "uV", "gain": 0.2} | facts)
    return path


def external_link(path: Path) -> None:
    traces(path.with_name("other.h5"))
    with h5py.File(path, "w") as file:
        file["traces"] = h5py.ExternalLink("other.h5", "/traces")


def link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    traces(path)
    with h5py.File(path, "a") as file:
        file["facts"] = h5py.ExternalLink("pipe", "/x")


def soft_link_through_an_external_one(path: Path) -> None:
    traces(path.with_name("other.h5"))
    with h5py.File(path, "w") as file:
        file["inner/door"] = h5py.ExternalLink("other.h5", "/")
        file["traces"] = h5py.SoftLink("/inner/door/traces")


def soft_links_in_a_circle(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["traces"] = h5py.SoftLink("/again")
        file["again"] = h5py.SoftLink("/traces")


def external_raw_data(path: Path) -> None:
    path.with_name("secret.bin").write_bytes(noise().tobytes())
    with h5py.File(path, "w") as file:
        file.create_dataset("traces", (40_000, 2), np.int16, external=[("secret.bin", 0, h5py.h5f.UNLIMITED)])
        file.attrs["sampling_frequency"] = FS


def virtual_dataset(path: Path) -> None:
    traces(path.with_name("other.h5"))
    layout = h5py.VirtualLayout((40_000, 2), np.int16)
    layout[:] = h5py.VirtualSource("other.h5", "traces", (40_000, 2))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("traces", layout)
        file.attrs["sampling_frequency"] = FS


def declared(shape: tuple[int, ...], rate: float = FS):
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            chunks = (min(1000, shape[0]), min(4, shape[1]))
            traces = file.create_dataset("traces", shape, np.int16, chunks=chunks, compression="gzip")
            traces.attrs["sampling_frequency"] = rate
            if traces.size < 10**6:
                traces[:] = 1

    return write


def bomb(path: Path) -> None:
    """Terabytes of zeros, gzip twice over: a chunk is packed once by h5py and names the filter twice."""
    import zlib

    with h5py.File(path, "w") as file:
        shape, chunk = (2**40, 1), (2**25, 1)
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(chunk)
        plist.set_deflate(9)
        plist.set_deflate(9)
        space = h5py.h5s.create_simple(shape)
        dataset = h5py.h5d.create(file.id, b"traces", h5py.h5t.NATIVE_INT16, space, plist)
        packed = zlib.compress(zlib.compress(bytes(2 * chunk[0]), 9), 9)
        for k in range(2000):
            dataset.write_direct_chunk((k * chunk[0], 0), packed)
        file["traces"].attrs["sampling_frequency"] = FS


def large_chunks(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("traces", (2**28, 2), np.int16, chunks=(2**28, 2), compression="gzip")
        file["traces"].id.write_direct_chunk((0, 0), np.random.default_rng(0).bytes(2**22))
        file["traces"].attrs["sampling_frequency"] = FS


def facts_of_terabytes(path: Path) -> None:
    traces(path)
    with h5py.File(path, "a") as file:
        file.create_dataset("channel_positions", (2**50, 2), np.float64, chunks=(1000, 2))


def rate_of_terabytes(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["traces"] = noise()
        file.create_dataset("fs", (2**50,), np.float64, chunks=(1000,))


def large_attribute(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file["traces"] = noise()
        file["traces"].attrs["sampling_frequency"] = np.zeros(2**18)


def deep_groups(path: Path) -> None:
    with h5py.File(path, "w") as file:
        group = file
        for _ in range(3000):
            group = group.create_group("g")


def circle_of_groups(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("a/b")
        file["a/b/back"] = file["a"]
        file["root"] = file["/"]


def nwb_of_terabytes(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.6.0"
        group = file.create_group("acquisition/Raw")
        group.attrs["neurodata_type"] = "ElectricalSeries"
        group.create_dataset("data", (2**50, 4), np.int16, chunks=(1000, 4))
        group["starting_time"] = 0.0
        group["starting_time"].attrs["rate"] = FS


def nwb_with_a_link(path: Path) -> None:
    nwb_of_terabytes(path)
    with h5py.File(path, "a") as file:
        del file["acquisition/Raw/data"]
        file["acquisition/Raw/data"] = h5py.ExternalLink("other.h5", "/traces")


def heap_without_end(path: Path) -> Path:
    """Sound, but for the size of the free space in the heap of its texts, 0, over which libhdf5 never gets
    (github.com/HDFGroup/hdf5, issue 1707)."""
    traces(path)  # with its unit of measure, a text
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    end = heap + int.from_bytes(content[heap + 8 : heap + 16], "little")
    place = heap + 16
    while place < end and content[place : place + 2] != b"\0\0":  # past the objects; free space has the index 0
        place += 16 + -(-int.from_bytes(content[place + 8 : place + 16], "little") // 8) * 8
    content[place + 8 : place + 16] = bytes(8)
    path.write_bytes(content)
    return path


#: Name, writer, a word of the refusal.
HDF5 = {
    "external link": (external_link, "link to another file"),
    "link to a pipe": (link_to_a_pipe, "link to another file"),
    "soft link through an external one": (soft_link_through_an_external_one, "link to another file"),
    "soft links in a circle": (soft_links_in_a_circle, "damaged"),
    "external raw data": (external_raw_data, "kept in another file"),
    "virtual dataset": (virtual_dataset, "virtual dataset"),
    "2^60 samples": (declared((2**60, 4)), "declares"),
    "a million channels": (declared((2**20, 2**20)), "declares"),
    "a rate beyond all amplifiers": (declared((10_000, 4), 1e15), "no recording"),
    "deflate bomb": (bomb, "declares"),
    "chunk of a gigabyte": (large_chunks, "in chunks of 1024 MB"),
    "positions of terabytes": (facts_of_terabytes, "declares"),
    "rate of terabytes": (rate_of_terabytes, "sampling frequency"),
    "large attribute": (large_attribute, "attribute"),
    "deep groups": (deep_groups, "nested"),
    "circle of groups": (circle_of_groups, "holds no traces"),
    "NWB of terabytes": (nwb_of_terabytes, "declares"),
    "NWB with a link": (nwb_with_a_link, "link to another file"),
}


def npy_with_objects(path: Path, sentinel: Path) -> None:
    np.save(path, np.array([Boom(sentinel)], dtype=object), allow_pickle=True)


def npy_of_terabytes(path: Path, sentinel: Path) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (2**50,)})


def npy_that_is_a_pickle(path: Path, sentinel: Path) -> None:
    path.write_bytes(pickle.dumps(Boom(sentinel)))


def npy_that_is_an_archive(path: Path, sentinel: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))


NPY = (npy_with_objects, npy_of_terabytes, npy_that_is_a_pickle, npy_that_is_an_archive)


def _safetensors(header: bytes, content: bytes = b"", length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + content


def model_that_is_a_pickle(path: Path, sentinel: Path) -> None:
    path.write_bytes(pickle.dumps({"format_version": 2, "x": Boom(sentinel)}))


def model_that_is_empty(path: Path, sentinel: Path) -> None:
    path.write_bytes(b"")


def model_of_another_program(path: Path, sentinel: Path) -> None:
    save_file({"x": np.zeros(3)}, path, {"format": "pt"})


def model_with_a_huge_header(path: Path, sentinel: Path) -> None:
    path.write_bytes(_safetensors(b"{}", length=2**62))


def model_with_a_longer_header_than_file(path: Path, sentinel: Path) -> None:
    path.write_bytes(_safetensors(b'{"__metadata__":{}}', length=10**6))


def model_of_terabytes(path: Path, sentinel: Path) -> None:
    entry = {"dtype": "F64", "shape": [2**40], "data_offsets": [0, 2**43]}
    path.write_bytes(_safetensors(json.dumps({"x": entry}).encode(), b"\0" * 64))


def model_with_tensors_over_each_other(path: Path, sentinel: Path) -> None:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    path.write_bytes(_safetensors(json.dumps({"x": entry, "y": entry}).encode(), b"\0" * 8))


def model_nested_too_deep(path: Path, sentinel: Path) -> None:
    save_file({"x": np.zeros(3)}, path, {"spikecrsae": "[" * 10**6})


def model_with_tensors_that_are_not_there(path: Path, sentinel: Path) -> None:
    save_file({"x": np.zeros(3)}, path, {"spikecrsae": '{"format_version": 2, "x": {"tensor": "y"}}'})


def model_with_more_tensors_than_names(path: Path, sentinel: Path) -> None:
    save_file({"x": np.zeros(3)}, path, {"spikecrsae": '{"format_version": 2}'})


def model_of_numbers_that_numpy_does_not_know(path: Path, sentinel: Path) -> None:
    entry = {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}
    path.write_bytes(_safetensors(json.dumps({"x": entry}).encode(), b"\0"))


MODELS = (
    model_that_is_a_pickle, model_that_is_empty, model_of_another_program, model_with_a_huge_header,
    model_with_a_longer_header_than_file, model_of_terabytes, model_with_tensors_over_each_other, model_nested_too_deep,
    model_with_tensors_that_are_not_there, model_with_more_tensors_than_names, model_of_numbers_that_numpy_does_not_know,
)  # fmt: skip
