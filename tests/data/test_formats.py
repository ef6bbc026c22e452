"""docs/formats.md tells how files are read: its examples are read, its names and numbers are those of the code."""

import re

import numpy as np
import pytest

from lib import __main__ as command
from lib.data import doubts, reading
from lib.data.names import ALIASES, ROLE_AND_RANK, is_other
from lib.paths import ROOT

TEXT = (ROOT / "docs" / "formats.md").read_text()
EXAMPLES = re.findall(r"^```(?:csv|json)\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
*SAME, UPLINKS = EXAMPLES


def read(tmp_path, text):
    path = tmp_path / "example"
    path.write_text(text)
    return reading.read_fingerprints(path, "office")


def require_the_two_scans(fingerprints):
    np.testing.assert_array_equal(fingerprints.rssi, [[-61, np.nan], [-58, -77]])
    np.testing.assert_array_equal(fingerprints.position, [[1.5, 2], [3, 4]])
    assert fingerprints.floor.tolist() == [0, 1]


@pytest.mark.parametrize("text", SAME, ids=["wide", "long", "pairs", "JSON"])
def test_the_examples_are_the_same_two_scans(tmp_path, text):
    require_the_two_scans(read(tmp_path, text))


def test_the_folder_is_the_same_two_scans(tmp_path):
    for name in ("Samples.csv", "RSSI.csv"):
        example = re.search(rf"^```{name}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
        (tmp_path / name).write_text(example[1])
    office = reading.read_fingerprints(tmp_path, "office")
    require_the_two_scans(office)
    assert office.part.tolist() == ["train", "test"]


def test_the_uplinks_are_read_with_their_position_time_and_device(tmp_path):
    fingerprints = read(tmp_path, UPLINKS)
    assert fingerprints.rssi.tolist() == [[-97], [-97]] and len(fingerprints.transmitters) == 1
    assert fingerprints.group.tolist() == ["0102030405060708", "tracker-1"]
    assert fingerprints.frame.to_degrees(fingerprints.position).round(6).tolist() == [[51.22, 4.4]] * 2


def test_the_names_of_columns_mean_their_roles():
    section = re.search("## Columns\n(.*?)\n## ", TEXT, flags=re.DOTALL)[1]
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \|", section, flags=re.MULTILINE)
    named = {role: names.split(", ") for role, names in rows}
    assert set(named) == set(ALIASES)
    for role, names in named.items():
        ranks = [ROLE_AND_RANK[name] for name in names]
        assert {of_role for of_role, _ in ranks} == {role}, role
        assert ranks == sorted(ranks), "in the order in which they count"
    no_transmitters = re.search(r"its name says that it is something else \((.*), …\)", TEXT)[1]
    assert all(map(is_other, no_transmitters.replace("`", "").split(", ")))


def test_the_options_are_there():
    options = {name for parameter in command.fit.params for name in parameter.opts}
    assert set(re.findall(r"--[a-z-]+", TEXT)) <= options | {"--help"}


def test_the_thresholds_are_those_of_the_code():
    for told in (
        f"| {doubts.DOMINANT_WARNED:.0%} or more, of at least {doubts.LEAST_READINGS} readings".replace("%", " %"),
        f"| {doubts.DOMINANT_REFUSED:.0%} or more have one value".replace("%", " %"),
        f"refused from {doubts.LEAST_ZEROS} on, if they are more than {doubts.ZERO_REFUSED:.0%}".replace("%", " %"),
        f"at most {doubts.MOST_FAR}, or {doubts.MOST_FAR_SHARE:.1%}, ".replace("%", " %"),
        f"{doubts.FAR_EXTENTS:g} times their extent and {doubts.FAR_METRES:g} m",
        f"one value in all of at least {doubts.LEAST_ROWS} rows",
        f"within less than {doubts.LEAST_RANGE_DB:g} dB",
    ):
        assert told in TEXT
