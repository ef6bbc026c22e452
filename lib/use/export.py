"""A localizer as a folder for machines that only locate: the network, what its numbers mean, and how to use it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from lib.paths import replacing
from lib.use import convert, runtime
from lib.use.localizer import Localizer
from lib.use.runtime import DESCRIPTION, KERAS_FILE, ONNX_FILE

LITERT_FILE = "localizer.tflite"
FORMATS = tuple(convert.FORMATS.values())
README = """# A localizer

It locates devices from the strength of the radio signals that they hear. It knows {n_transmitters:,} transmitters in

{environments}

| file | what it is |
|:--|:--|
| `localizer.onnx` | the network for ONNX Runtime: dBm in, NaN = not heard |
{litert}| `localizer.json` | names of transmitters, frames, calibration of the radii, where the localizer comes from |

## Locate a scan

Neither TensorFlow nor pandas is needed. In a copy of the repository that wrote this folder, run
`pip install -r requirements-runtime.txt` (NumPy and ONNX Runtime), and then, in Python:

```python
from lib.use.runtime import Runtime

localizer = Runtime.load("{folder}")  # the path of this folder
scan = {scan}
located = localizer.locate([scan])
print(located["environment"][0], located["latitude"][0], located["longitude"][0], located["radius_90"][0])
```

RSSI is in dBm. A transmitter that a scan does not name is not heard. {not_heard}

## What `locate` returns

A dict of arrays with an element for each scan:

| name | meaning | unit |
|:--|:--|:--|
| `scan` | name of the scan | |
| `located` | whether the scan hears a known transmitter; if not, all of what follows but the counts is missing | |
| `environment` | name | |
| `building`, `floor` | numbers, missing where the environment has none | |
| `x`, `y` | position east and north in the plane of the environment | metres of that plane |
| `latitude`, `longitude` | the same position; missing where the plane has no known place on earth | degrees |
| `radius_50`, `radius_90` | the true position is so near with a probability of 50 or 90 % | metres of that plane |
| `heard`, `unknown` | how many known and other transmitters the scan hears | |

Missing numbers are NaN. `environment`, `building` and `floor` are masked arrays: `tolist()` returns None for what is
missing. The radii hold for scans that come like the rows that were held out to calibrate them; for others less often.
"""


def export(localizer: Path | str, output: Path | str, formats: Sequence[str] | None = None) -> list[Path]:
    """Write a saved localizer as a folder that needs no TensorFlow.

    Args:
        localizer: directory that `Localizer.save` wrote.
        output: directory, made if need be.
        formats: among `onnx`, which is always written, and `litert`; None for both.

    Returns:
        The files that were written: `localizer.onnx`, `localizer.tflite` if asked for, `localizer.json`, `README.md`.

    Raises:
        ValueError: if a format is not known, or the directory holds no localizer.
    """
    if formats is None:
        formats = FORMATS
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise ValueError(f"`formats` must be among {', '.join(FORMATS)}. Received: {', '.join(unknown)}")
    localizer, output = Path(localizer), Path(output)
    description = runtime.read_description(localizer, KERAS_FILE)
    model = Localizer.load(localizer).model
    output.mkdir(parents=True, exist_ok=True)
    files = [output / ONNX_FILE]
    if (localizer / ONNX_FILE).exists():
        runtime.read_description(localizer, ONNX_FILE)
        with replacing(output / ONNX_FILE) as temporary:
            shutil.copyfile(localizer / ONNX_FILE, temporary)
    else:
        convert.write(model, output / ONNX_FILE)
    if "litert" in formats:
        files.append(convert.write(model, output / LITERT_FILE))
    runtime.write_description(output, description)
    readme = output / "README.md"
    with replacing(readme) as temporary:
        temporary.write_text(_readme(description, output, "litert" in formats))
    return [*files, output / DESCRIPTION, readme]


def _readme(description: dict, folder: Path, with_litert: bool) -> str:
    """What a person reads who finds the folder."""
    environments = []
    for environment in description["environments"]:
        labels = [label for label in runtime.LABELS if environment[label]]
        told = ", ".join(["position", *labels])
        rows = environment["learning_rows"]
        environments.append(f"- `{environment['name']}`: {told}; learnt from {rows:,} scans ({_plane(environment)})")
    scan = {name: -60 - 10 * number for number, name in enumerate(description["transmitters"][:2])}
    markers = description.get("not_heard", [])
    not_heard = "None and NaN are not heard, either."
    if markers:
        listed = ", ".join(f"`{marker}`" for marker in markers)
        not_heard = f"None, NaN and {listed} are not heard, either."
    return README.format(
        n_transmitters=len(description["transmitters"]),
        environments="\n".join(environments),
        litert="| `localizer.tflite` | the same network for LiteRT |\n" if with_litert else "",
        folder=folder.name,
        scan=scan,
        not_heard=not_heard,
    )


def _plane(environment: dict) -> str:
    """Which plane `x` and `y` are in."""
    crs = environment["frame"]["crs"]
    if crs is None:
        return "metres of the survey's own plane"
    return f"plane: {crs}"
