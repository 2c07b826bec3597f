"""kNN and logistic regression on 50,000 x 512 vectors and 10,000 queries, beside scikit-learn and lightly.

    python benchmarks/evaluation.py [--quick] [--out benchmarks/results/evaluation.json]

All predict the same queries (`works/evaluation.py`); how many predictions differ from ours is part of the
result. kNN cannot be faster than its one matrix product, which is one of the contestants.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from recorded import parser, record_as_asked
from turns import Work, in_turns, peer_versions, peers_installed, summary

FULL, QUICK = (50_000, 10_000), (10_000, 1_000)
PRODUCT = "the product alone"
LIBRARIES = {
    "knn": ("byol", "scikit-learn", "lightly", PRODUCT),
    "logistic": ("byol", "scikit-learn"),
}
ROUNDS = {"knn": 5, "logistic": 1}
"""scikit-learn needs two minutes for the regression."""


def measured(protocol: str, sizes: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Return times, our share of the others', and how many predictions differ from ours."""
    libraries = [name for name in LIBRARIES[protocol] if name != "lightly" or peers_installed()]
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.npy" for name in libraries}
        works = {name: work(protocol, name, sizes, file) for name, file in files.items()}
        answers = in_turns(works, rounds, warm_up=1 if rounds > 1 else 0)
        predictions = {name: np.load(file) for name, file in files.items()}
    values = summary({name: [answer["seconds"] for answer in found] for name, found in answers.items()})
    values["predictions_that_differ"] = {
        name: int((found != predictions["byol"]).sum())
        for name, found in predictions.items()
        if name != PRODUCT
    }
    return values


def work(protocol: str, library: str, sizes: tuple[int, int], file: Path) -> Work:
    """Return the process of one library."""
    vectors, queries = map(str, sizes)
    arguments = ["--vectors", vectors, "--queries", queries, "--predictions", str(file)]
    return Work(
        "evaluation.py",
        *("--protocol", protocol, "--library", library, *arguments),
        peers=library == "lightly",
    )


def main() -> None:
    options = parser(__doc__, "less of everything: a look, not a result").parse_args()
    sizes = QUICK if options.quick else FULL
    result: dict[str, Any] = {"peers": peer_versions(), "load_before": round(os.getloadavg()[0], 1)}
    result["vectors_and_queries"] = sizes
    for protocol in LIBRARIES:
        result[protocol] = measured(protocol, sizes, 1 if options.quick else ROUNDS[protocol])
    share = round(1 / result["knn"]["byol_takes"][PRODUCT], 3)
    result["knn"]["share_of_floor"] = share
    for protocol in LIBRARIES:
        tell(protocol, result[protocol])
    print(f"kNN: its one matrix product takes {share:.2f} of its time")
    record_as_asked(options, "evaluation", "python benchmarks/evaluation.py", result)


def tell(protocol: str, values: dict[str, Any]) -> None:
    """Print one line for each library."""
    for name, taken in values["seconds"].items():
        if name == PRODUCT:
            continue
        share = values["byol_takes"].get(name)
        compared = f"   byol is {1 / share:.1f}x as fast" if share else ""
        differ = values["predictions_that_differ"][name]
        print(f"{protocol:10s}{name:14s}{taken:9.3f} s   {differ} predictions differ{compared}")


if __name__ == "__main__":
    main()
