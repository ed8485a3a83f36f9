"""Keep the numbers of a finished audit of an example plan, without the points that only figures need.

mnemoscope run examples/location30.toml --out runs/location30
python benchmarks/examples.py runs/location30 --out benchmarks/results/location30.json
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

from mnemoscope.reports.schema import read_result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished audit, with its result.json")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    result = read_result(args.run)
    subjects = tuple(replace(s, curves=(), distributions=(), exposed=()) for s in result.subjects)
    args.out.write_text(json.dumps(asdict(replace(result, subjects=subjects)), separators=(",", ":")) + "\n")
    for s in subjects:
        print(s.name, s.verdict.word, s.verdict.tier, *s.verdict.flags)


if __name__ == "__main__":
    main()
