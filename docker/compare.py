"""Compares two runs of one experiment, and exits with 1 where any number differs: docker/compare.py FOLDER FOLDER"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pipeline.evaluation.summary import comparable
from pipeline.training.reproduction import compare_runs


def main() -> int:
    """Weights and numbers as ``reproduce`` compares them, cases.csv to the byte, summary.json value by value."""
    first, second = map(Path, sys.argv[1:])
    comparison = compare_runs(first, second, tolerance=0.0)
    print(comparison.line())
    for difference in comparison.differences[:20]:
        print(f"    {difference.what}: {difference.then} and {difference.now}")
    same_cases = (first / "cases.csv").read_bytes() == (second / "cases.csv").read_bytes()
    summaries = [comparable(json.loads((folder / "summary.json").read_text())) for folder in (first, second)]
    same_summary = summaries[0] == summaries[1]
    for name, same in (("cases.csv", same_cases), ("summary.json", same_summary)):
        print(f"{name}: {'identical' if same else 'different'}")
    return 0 if comparison.same and same_cases and same_summary else 1


if __name__ == "__main__":
    sys.exit(main())
