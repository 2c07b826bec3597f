"""kNN and logistic regression on 50,000 x 512 vectors and 10,000 queries, beside scikit-learn and lightly.

    python benchmarks/evaluation.py [--quick] [--out benchmarks/results/evaluation.json]

All predict the same queries (`works/evaluation.py`); how many predictions differ from ours is part of the
result. kNN cannot be faster than its one matrix product, which is one of the contestants; its rate stands
beside the rate of a product of square matrices. The regression's floors: its products at that rate, and the
vectors read twice by every look at all of them, at the speed of a copy. Finding the axes comes on top.
"""

import os
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from floors import copy_bandwidth, matrix_rate
from recorded import parser, record_as_asked
from turns import Work, in_turns, peer_versions, peers_installed, share, summary

FULL, QUICK = (50_000, 10_000), (10_000, 1_000)
PRODUCT = "the product alone"
LIBRARIES = {
    "knn": ("byol", "scikit-learn", "lightly", PRODUCT),
    "logistic": ("byol", "scikit-learn"),
}
ROUNDS = {"knn": 5, "logistic": 3}
WIDTH = 512
CPU = torch.device("cpu")


def measured(protocol: str, sizes: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Return times, our share of the others', and how many predictions differ from ours."""
    libraries = [name for name in LIBRARIES[protocol] if name != "lightly" or peers_installed()]
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.npy" for name in libraries}
        works = {name: work(protocol, name, sizes, file) for name, file in files.items()}
        answers = in_turns(works, rounds, warm_up=1 if rounds > 1 else 0)
        predictions = {name: np.load(file) for name, file in files.items() if answers[name]}
    values = summary({name: [answer["seconds"] for answer in found] for name, found in answers.items()})
    values["predictions_that_differ"] = {
        name: int((found != predictions["byol"]).sum())
        for name, found in predictions.items()
        if name != PRODUCT and "byol" in predictions
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


def knn_floor(values: dict[str, Any], sizes: tuple[int, int], rate: float) -> dict[str, Any]:
    """Return the product's share of our time, and its rate in our time as a share of the matrix rate."""
    operations, seconds = 2 * sizes[0] * sizes[1] * WIDTH, values["seconds"]
    at_rate = operations / rate
    return {
        "share_of_floor": share(1, values["byol_takes"][PRODUCT]),
        "operations": operations,
        "matrix_rate": rate,
        "share_of_matrix_rate": share(at_rate, seconds["byol"]),
        "product_share_of_matrix_rate": share(at_rate, seconds[PRODUCT]),
    }


def logistic_floor(values: dict[str, Any], sizes: tuple[int, int], rate: float) -> dict[str, Any]:
    """Return the seconds that our regression's operations and bytes take at the best rates measured."""
    words = ("--protocol", "logistic", "--library", "byol", "--count")
    with Work("evaluation.py", *words, "--vectors", str(sizes[0]), "--queries", str(sizes[1])) as process:
        done = process.once()
    bytes_ = done["evaluations"] * 2 * 8 * sizes[0] * WIDTH  # double precision
    floors = {
        "seconds_at_matrix_rate": round(done["operations"] / rate, 4),
        "seconds_at_copy_speed": round(bytes_ / copy_bandwidth(CPU), 4),
    }
    return {**done, **floors, "share_of_floor": share(max(floors.values()), values["seconds"]["byol"])}


def main() -> None:
    options = parser(__doc__, "less of everything: a look, not a result").parse_args()
    sizes = QUICK if options.quick else FULL
    peers = peer_versions() | {"scikit-learn": version("scikit-learn")}
    result: dict[str, Any] = {"peers": peers, "load_before": round(os.getloadavg()[0], 1)}
    result["vectors_and_queries"] = sizes
    rate = matrix_rate(device=CPU)
    for protocol in LIBRARIES:
        result[protocol] = measured(protocol, sizes, 1 if options.quick else ROUNDS[protocol])
        if protocol == "knn":
            rate = max(rate, matrix_rate(device=CPU))  # before and after: the machine may have been busy
            result["knn"] |= knn_floor(result["knn"], sizes, rate)
    result["logistic"] |= logistic_floor(result["logistic"], sizes, matrix_rate(torch.float64, CPU))
    for protocol in LIBRARIES:
        tell(protocol, result[protocol])
    knn, logistic = result["knn"], result["logistic"]
    print(
        f"kNN: its one matrix product takes {knn['share_of_floor'] or 0:.2f} of its time; its rate is "
        f"{knn['share_of_matrix_rate'] or 0:.2f} of the matrix rate, the product's alone "
        f"{knn['product_share_of_matrix_rate'] or 0:.2f}\n"
        f"logistic: {logistic['evaluations']} looks at all vectors; operations alone "
        f"{logistic['seconds_at_matrix_rate']:.3f} s, bytes alone {logistic['seconds_at_copy_speed']:.3f} s"
    )
    record_as_asked(options, "evaluation", "python benchmarks/evaluation.py", result)


def tell(protocol: str, values: dict[str, Any]) -> None:
    """Print one line for each library."""
    for name, taken in values["seconds"].items():
        if name == PRODUCT or taken is None:
            continue
        share = values["byol_takes"].get(name)
        compared = f"   byol is {1 / share:.1f}x as fast" if share else ""
        differ = values["predictions_that_differ"][name]
        print(f"{protocol:10s}{name:14s}{taken:9.3f} s   {differ} predictions differ{compared}")


if __name__ == "__main__":
    main()
