"""What a result says about where it came from."""

import getpass
import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict

from mnemoscope.audit.verdict.rules import FORBIDDEN_WORDS
from mnemoscope.provenance import LIMITATIONS, environment, timestamp


def test_environment_names_versions_and_hardware_and_nobody() -> None:
    e = environment("test device")
    import numpy as np

    assert e.packages["numpy"] == np.__version__
    assert (e.python, e.device) == (platform.python_version(), "test device")
    assert e.cores >= 1
    assert e.memory_bytes > 2**28
    text = json.dumps(asdict(e))
    assert os.getcwd() not in text
    assert platform.node() == "" or not re.search(rf"\b{re.escape(platform.node())}\b", text)
    assert f'"{getpass.getuser()}"' not in text


def test_environment_imports_neither_torch_nor_scipy() -> None:
    code = (
        "import sys; from mnemoscope.provenance import environment; environment(); "
        "print([m for m in ('torch', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_timestamp_is_rfc_3339_utc() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", timestamp())


def test_limitations_say_no_forbidden_word() -> None:
    assert len(LIMITATIONS) == 10
    for text in LIMITATIONS:
        assert not any(re.search(rf"\b{word}\b", text, re.I) for word in FORBIDDEN_WORDS), text
