"""Markdown tables, and the line that says what numbers were made with and on."""

from typing import Any


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def made_on(values: dict[str, Any]) -> str:
    """Return what the numbers were made with and on."""
    versions, peers = values["versions"], values.get("peers", {})
    others = "".join(f", {name} {peers[name]}" for name in ("lightly", "byol-pytorch") if name in peers)
    gpus = f" and {values['gpus'][0]}" if values["gpus"] else ""
    ours = ", ".join(f"{name} {versions[name]}" for name in ("torch", "torchvision", "byol"))
    capability = f" ({values['cpu_capability']})" if "cpu_capability" in values else ""
    device = f"{values['cores']} cores of {values['processor']}{capability}{gpus}"
    commit = f", commit {values['commit']}" if values.get("commit") else ""
    return f"\n`{values['command']}`, {values['date'][:10]}, {device}, {ours}{others}{commit}.\n"


def percent(row: dict[str, Any]) -> str:
    """Return a mean and its spread over seeds."""
    spread = f" +- {100 * row['std']:.1f}" if row["std"] else ""
    return f"{100 * row['mean']:.1f}{spread}"
