"""Where an evaluation writes what is more than numbers: into the run, or beside the `--out` of others."""

from dataclasses import dataclass
from pathlib import Path

from byol.config import EvaluateConfig
from byol.errors import UserError
from byol.rundir import RunDirectory


@dataclass(frozen=True)
class Outputs:
    """Folders; None: nothing of that kind is written."""

    splits: Path | None = None
    """Which images few labels were drawn of."""
    reports: Path | None = None
    networks: Path | None = None
    """Fine-tuned networks with their classifiers."""


def outputs_of(config: EvaluateConfig) -> Outputs:
    """Return where the things go that a command asks for; draws of labels go wherever there is a place.

    Of a bundle or a file they lie beside its `out`: mine.json, mine-reports/.

    Raises:
        UserError: something is asked for, and there is neither a run nor an `out`.
    """
    run, reported = RunDirectory(config.target), config.report or config.plot
    if run.config_file.is_file():
        splits, reports, networks = run.splits, run.reports, run.networks
    elif config.out is not None:
        out = Path(config.out)
        splits, reports, networks = (
            out.with_name(f"{out.stem}-{kind}") for kind in ("splits", "reports", "networks")
        )
    elif reported or config.save_networks:
        raise UserError(
            "--report, --plot and --save-networks need a run directory, or --out FILE: they write beside it"
        )
    else:
        return Outputs()
    return Outputs(splits, reports if reported else None, networks if config.save_networks else None)
