"""Stores of every kind of archive have the format that docs/store-format.md describes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import cf
from pipelines.conversion import metadata, plan
from pipelines.conversion.options import ConversionOptions, ConversionRequest
from pipelines.storage import lease
from pipelines.stores import shards
from pipelines.stores.ledger import ShardRecord
from pipelines.stores.moments import MOMENTS
from pipelines.stores.store import open_store
from tests.support.archives.clip_archives import write_kth
from tests.support.archives.radar_files import five_minutes, knmi_folder
from tests.support.archives.small_archives import fields, hourly, write_netcdf, write_traffic
from tests.support.archives.static_archives import converted
from tests.support.pages.pages import DOCS, page_python

PAGE = DOCS / "store-format.md"
SIZES = {"chunk_frames": 4, "shard_frames": 8}
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (float, int),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}


def section(heading: str) -> str:
    """Return a part of the page, up to the next heading of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", PAGE.read_text(), re.M | re.S)
    assert found, heading
    return found[1]


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table in a part of the page."""
    lines = [line for line in section(heading).splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(table) > 2, heading
    return table[2:]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def first_quoted(heading: str) -> dict[str, list[str]]:
    """Return the other cells of each row, by the name in its first cell."""
    return {quoted(row[0])[0]: row[1:] for row in rows(heading)}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Write stores with gaps, with channels, with a projection, and of clips."""
    folder = tmp_path_factory.mktemp("format")

    for day in (1, 2, 4):
        times = hourly(f"2010-01-{day:02d}", 24)
        values = fields(times)
        values[3] += 100.0 if day == 4 else 0.0
        write_netcdf(
            folder / "days" / f"2m_temperature_day{day:02d}_5.625deg.nc",
            times,
            values=values,
            attributes={"valid_max": np.float32(350)},
        )
    mask = np.linspace(0, 1, 24, dtype=np.float32).reshape(1, 4, 6)
    write_netcdf(folder / "constants.nc", hourly("2010-01-01", 1), variable="lsm", values=mask)

    write_traffic(folder / "traffic" / "BJ13_M4x3_T30_InOut.h5", "2013-07-01", list(range(60)))

    knmi_folder(folder / "radar", five_minutes("2021-06-07T08:00", 12))
    sorted((folder / "radar").iterdir())[6].write_bytes(b"cut off")

    write_kth(folder / "kth", {"person01_walking_d1": 25, "person22_walking_d1": 25}, (6, 6))

    asked = {
        "days": ("weatherbench", {"static_fields": (("lsm", None),)}, folder / "constants.nc"),
        "traffic": ("taxibj", {}, None),
        "radar": ("radar", {}, None),
        "kth": ("kth", {"chunk_frames": 20, "shard_frames": 20}, None),
    }
    made = {}
    for name, (archive, options, static) in asked.items():
        request = ConversionRequest(
            archive,
            str(folder / name),
            str(folder / f"{name}.zarr"),
            ConversionOptions(**{**SIZES, **options}),
            static_source=static and str(static),
        )
        converted(request)
        made[name] = folder / f"{name}.zarr"
    return made


KINDS = ("days", "traffic", "radar", "kth")


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, stores: Mapping[str, Path]) -> Path:
    return stores[request.param]


def root_of(store: Path) -> dict[str, Any]:
    return json.loads((store / "zarr.json").read_text())


def arrays_of(store: Path) -> dict[str, Any]:
    return root_of(store)["consolidated_metadata"]["metadata"]


def kind_of(name: str, store: Path) -> str:
    """Return the name that the page gives to an array's kind."""
    configuration = root_of(store)["attributes"]["configuration"]
    if name in configuration["variables"]:
        return "<variable>"
    if name in [field for field, _ in configuration.get("static_fields", ())]:
        return "<static field>"
    own = ("time", "available", "missing_fraction", "sample", "crs")
    return name if name in own else "<coordinate>"


def check_keys(found: Mapping[str, Any], heading: str, conditions: set[str]) -> None:
    """Check that the page has every key with its type, and that no required key is missing."""
    said = first_quoted(heading)
    assert set(found) <= set(said)
    for key, (types, there, *_) in said.items():
        known = ("MUST", "clips", "static fields", "extra dimensions", "inside", "local times")
        assert there in known, key
        assert (key in found) == (there == "MUST" or there in conditions), key
        if key in found:
            allowed = [kind for word in types.split(" or ") for kind in TYPES[word]]
            assert type(found[key]) in allowed, key


def conditions(store: Path) -> set[str]:
    attributes = root_of(store)["attributes"]
    found = {"clips"} if "splits_unit" in attributes else set()
    found |= {"static fields"} if "static_fields" in attributes["configuration"] else set()
    return found | ({"local times"} if attributes["archive"] == "taxibj" else set())


def test_arrays_have_the_dimensions_types_fill_values_and_codecs_of_the_page(store):
    said = {quoted(row[0])[0]: row[1:] for row in rows("Arrays")}
    clips = "sample" in arrays_of(store)
    for name, array in arrays_of(store).items():
        kind = kind_of(name, store)
        dims, types, fill, chunk, codecs = said[kind]
        assert array["data_type"] in quoted(types), name
        assert fill == "any" or str(array["fill_value"]) == quoted(fill)[0], name
        assert [c["name"] for c in array["codecs"]] in _orders(kind, codecs, clips), name
        assert kind == "<variable>" or _chunk(chunk, array["shape"], clips) == _chunk_of(array), (
            name
        )
        assert _fits(dims, array.get("dimension_names", []), name, clips), name
    assert {"time", "available", "missing_fraction"} <= set(arrays_of(store))


def _orders(kind: str, codecs: str, clips: bool) -> list[list[str]]:
    if kind in ("<coordinate>", "sample"):
        return [[name] for name in quoted(codecs)]
    parts = codecs.split("; of clips ")
    return [quoted(parts[-1] if clips else parts[0])]


def _chunk(said: str, shape: list[int], clips: bool) -> list[int]:
    frames = re.match(r"\d+", said)
    if not frames or (clips and "of clips whole" in said):
        return shape
    return [int(frames[0]) // shape[1], shape[1]] if clips else [int(frames[0])]


def _chunk_of(array: Mapping[str, Any]) -> list[int]:
    return array["chunk_grid"]["configuration"]["chunk_shape"]


def _fits(said: str, dims: list[str], name: str, clips: bool) -> bool:
    """Return whether dimensions match a cell such as "time, [extra,] y, x; of clips ..."."""
    if said == "its own name":
        return dims == [name]
    if said == "none":
        return dims == []
    wanted = quoted(said.split("; of clips ")[-1 if clips else 0])[0].replace(
        "y, x", ", ".join(dims[-2:])
    )
    plain = wanted.replace("[extra,] ", "")
    extra = plain.replace("time,", "time, channel,")
    grid = (
        dims[-2:] in (["y", "x"], ["latitude", "longitude"]) or len(dims) < 2 or "y, x" not in said
    )
    return grid and ", ".join(dims) in (plain, extra)


def test_shards_and_chunks_are_encoded_as_the_page_says(store):
    text = section("Chunks and shards")
    attributes = root_of(store)["attributes"]
    sizes = attributes["configuration"]
    for name in sizes["variables"]:
        array = arrays_of(store)[name]
        (sharding,) = array["codecs"]
        inside = sharding["configuration"]
        assert [c["name"] for c in inside["codecs"]] == ["bytes", "blosc"]
        assert [c["name"] for c in inside["index_codecs"]] == ["bytes", "crc32c"]
        assert inside["index_location"] == "end"
        blosc = inside["codecs"][1]["configuration"]
        assert (blosc["cname"], blosc["clevel"], blosc["shuffle"]) == ("lz4", 5, "shuffle")
        assert "`lz4`, level 5, byte shuffle, type size 4" in " ".join(text.split())
        info = open_store(str(store)).variables[name]
        assert (info.chunk_frames, info.shard_frames) == (
            sizes["chunk_frames"],
            sizes["shard_frames"],
        )
        shard, chunk = _chunk_of(array), inside["chunk_shape"]
        assert shard[1:] == chunk[1:] == array["shape"][1:]
        held = sorted(p.relative_to(store / name / "c") for p in (store / name / "c").rglob("*"))
        files = [str(p) for p in held if (store / name / "c" / p).is_file()]
        tail = "/0" * (len(shard) - 1)
        assert files == sorted(f"{i}{tail}" for i in range(-(-array["shape"][0] // shard[0])))


def test_the_limits_are_those_of_the_code():
    limits = [int(row[1]) for row in rows("Chunks and shards")]
    assert limits == [
        plan.MAX_CHUNK_FRAMES,
        plan.MAX_CHUNK_BYTES,
        plan.MAX_SHARD_FRAMES,
        plan.MAX_SHARD_BYTES,
        metadata.GROWING_CHUNK,
    ]
    text = " ".join(section("lease.json").split())
    assert f"every {lease.HEARTBEAT_SECONDS:g} s" in text
    assert f"is {lease.STALE_SECONDS:g} s old" in text


def test_flags_are_those_of_the_page_and_each_of_them_occurs(stores):
    said = {int(row[0]): quoted(row[1])[0] for row in rows("Flags")}
    assert list(said) == cf.AVAILABLE["flag_values"]
    assert " ".join(said.values()) == cf.AVAILABLE["flag_meanings"]
    found = {int(flag) for name in KINDS for flag in open_store(str(stores[name])).available}
    assert found == set(said)
    for name in KINDS:
        attributes = arrays_of(stores[name])["available"]["attributes"]
        assert attributes["flag_meanings"] == cf.AVAILABLE["flag_meanings"]


def test_all_attributes_of_arrays_are_on_the_page(store):
    said = {quoted(row[0])[0]: row[1:] for row in rows("Attributes of arrays")}
    for name, array in arrays_of(store).items():
        kind = kind_of(name, store)
        if kind == "crs":
            assert {"crs_wkt", "spatial_ref", "proj4"} <= set(array["attributes"])
            continue
        must, may = (set(quoted(cell)) for cell in said[kind])
        found = set(array["attributes"])
        assert must <= found <= must | may, name


def test_the_page_lists_the_variable_attributes_that_the_code_keeps():
    said = {quoted(row[0])[0]: row[1:] for row in rows("Attributes of arrays")}
    kept = {*cf._KEPT, *cf._LIMITS}
    assert set(quoted(said["<variable>"][1])) == kept | {"grid_mapping"}
    assert set(quoted(said["<static field>"][1])) == kept | {
        "grid_mapping",
        "missing_pixels_set_to",
    }


def test_the_root_has_the_keys_and_types_of_the_page(store):
    attributes = root_of(store)["attributes"]
    check_keys(attributes, "Attributes of the root", conditions(store))
    check_keys(attributes["configuration"], "Configuration", conditions(store))
    assert attributes["Conventions"] in PAGE.read_text()
    assert attributes["converter_version"] == shards.CONVERTER_VERSION
    statistics = attributes["statistics"]
    assert set(statistics) == {"split", "period", "variables"}
    for name, numbers in statistics["variables"].items():
        extra = open_store(str(store)).variables[name].extra_shape
        check_keys(numbers, "Statistics", {"extra dimensions"} if extra else set())
        for channel in numbers.get("channels", ()):
            check_keys(channel, "Statistics", set())


def test_the_ledger_has_the_keys_and_types_of_the_page(store):
    summary = json.loads((store / ".ledger" / "plan.json").read_text())
    check_keys(summary, "plan.json", conditions(store))
    records = sorted((store / ".ledger").glob("*/*.json"))
    configuration = summary["configuration"]
    names = [*configuration["variables"], *dict(configuration.get("static_fields", ()))]
    assert {path.parent.name for path in records} == set(names)
    for path in records:
        record = json.loads(path.read_text())
        check_keys(record, "A record", set())
        for source in (*record["sources"], *summary["sources"]):
            check_keys(source, "A file", {"inside"} if "inside" in source else set())
        assert all(
            set(run) == {"frame", "frames", "file", "reason"} for run in record["unreadable"]
        )
        assert path.name == f"{record['shard']:06d}.json"
        assert (store / record["object_name"]).stat().st_size == record["bytes"]
    assert not (store / ".ledger" / "lease.json").exists()


def test_a_lease_has_the_keys_and_types_of_the_page(tmp_path):
    with lease.hold(str(tmp_path)):
        check_keys(json.loads((tmp_path / ".ledger/lease.json").read_text()), "lease.json", set())


def test_the_page_lists_every_object(store):
    patterns = [
        re.sub(r"\\?<shard\\?>", r"\\d+", re.escape(quoted(row[0])[0])) for row in rows("Objects")
    ]
    patterns = [
        re.sub(r"\\?<[a-z\\ ]+>", "[^/]+", p).replace(r"\.\.\.", "[0-9/]+") for p in patterns
    ]
    patterns = [p.replace(r"\d+/0/0", r"\d+(/0)+") for p in patterns]
    for path in store.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(store))
            assert any(re.fullmatch(pattern, name) for pattern in patterns), name


def test_the_readers_on_the_page_read_the_values(stores, tmp_path, monkeypatch):
    (tmp_path / "t2m.zarr").symlink_to(stores["days"])
    monkeypatch.chdir(tmp_path)
    with_xarray, with_zarr, fingerprint, _ = page_python(PAGE)
    names: dict[str, Any] = {}
    exec(with_xarray, names)
    opened = open_store(str(stores["days"]))
    usable = opened.available == 0
    truth = np.asarray(opened.array("t2m")[:])
    np.testing.assert_array_equal(names["frames"].values, truth[usable])

    exec(with_zarr, names)
    first, last = opened.splits["test"]
    test = usable & (opened.times >= first) & (opened.times <= last)
    constants = opened.statistics["variables"]["t2m"]
    np.testing.assert_allclose(
        names["normalised"], (truth[test] - constants["mean"]) / constants["std"], rtol=1e-6
    )
    assert len(names["normalised"]) > 5

    exec(fingerprint, names)
    assert names["fingerprint"] == opened.fingerprint


def test_the_moments_are_unpacked_as_the_page_says(stores):
    path = stores["days"] / ".ledger" / "t2m" / "000000.json"
    names: dict[str, Any] = {"np": np, "record": json.loads(path.read_text())}
    *_, unpack = page_python(PAGE)
    exec(unpack, names)
    record = ShardRecord.from_bytes(path.read_bytes())
    np.testing.assert_array_equal(names["moments"], record.moments)
    assert names["moments"].shape == (8, 1, len(MOMENTS))
    assert ", ".join(f"`{name}`" for name in MOMENTS) in section("A record")
