"""Makes ``toy_models`` importable: tests of this folder share its trained models."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
