"""What the notebooks share. Importing it fixes, once, how the numerical libraries run.

TensorFlow and Keras read these variables when they are first imported, so they are set here, before any module
of this package imports them. A variable that is already set is left alone.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TextIO

# The same number of threads gives the same weights on the same machine; "as many as there are cores" would not.
THREADS = os.environ.get("FINGERPRINT_THREADS", "1")

for _name, _value in {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_NUM_INTRAOP_THREADS": THREADS,
    "TF_NUM_INTEROP_THREADS": THREADS,
    "OMP_NUM_THREADS": THREADS,
    "CUDA_VISIBLE_DEVICES": "",
}.items():
    os.environ.setdefault(_name, _value)


@contextmanager
def stderr_in(file: IO) -> Iterator[TextIO]:
    """Send to an open file what this process, and processes that it starts, write to stderr.

    Yields:
        The screen, or whatever stderr was before.
    """
    sys.stderr.flush()
    screen = os.fdopen(os.dup(2), "w")
    os.dup2(file.fileno(), 2)
    try:
        yield screen
    finally:
        sys.stderr.flush()
        os.dup2(screen.fileno(), 2)
        screen.close()


@contextmanager
def quiet_import() -> Iterator[None]:
    """Keep off the screen what TensorFlow writes to stderr on import, whatever its log level; errors are shown."""
    with tempfile.TemporaryFile() as written, stderr_in(written) as screen:
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            written.seek(0)
            screen.write(written.read().decode(errors="replace"))
            raise
