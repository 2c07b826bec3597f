"""Weights: written whole, read without running code, loaded exactly or not at all; and are they finite?"""

import pickle
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from byol.core.named_backbone import classifier_layers
from byol.errors import UserError
from byol.rundir import written_whole

_NESTS = ("state_dict", "model")
"""Keys under which training scripts keep a state dict beside other things."""
_PREFIXES = ("module.", "backbone.", "net.", "encoder.")
"""What wrappers put before every name of a network's own; the outermost first."""
_LONGEST_LIST = 12
"""Names in an error; of more the modules are named."""


def write_safetensors(file: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors. Its own `save_file` makes files that only their owner may read."""
    from safetensors.torch import save

    file.write_bytes(save(tensors))


def all_finite(network: nn.Module) -> bool:
    """Say whether every parameter and buffer is finite; the host waits for the answer."""
    tensors = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())


def save_weights(net: nn.Module, file: Path) -> None:
    """Write a network's state dict as safetensors: the whole file, or the one before stays.

    Raises:
        UserError: the disk is full or not writable.
    """
    # A clone each: tied weights share memory, which safetensors refuses to write twice.
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in net.state_dict().items()}
    with written_whole(file) as temporary:
        write_safetensors(temporary, state)


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file, or from one that torch.save wrote.

    It may lie one level down, as the "state_dict" or "model" of a training script's checkpoint.

    Raises:
        UserError: the file is missing or holds no state dict.
    """
    from safetensors.torch import load_file

    if not file.is_file():
        raise UserError(f"there is no file with weights at {file}")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what is no pickle fails to be read as one in any way there is
        raise UserError(_unreadable(file, error)) from error
    nested = (loaded[key] for key in _NESTS if isinstance(loaded, dict) and isinstance(loaded.get(key), dict))
    state = next(nested, loaded)
    if not isinstance(state, dict) or not all(_is_named_tensor(*item) for item in state.items()):
        raise UserError(f"{file} holds no state dict (names and tensors)")
    return state


def _is_named_tensor(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def load_exactly(net: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load a state dict whose names and shapes must match, or load nothing.

    Raises:
        UserError: listing what is missing, unexpected or of another shape.
    """
    own = net.state_dict()
    problems = {
        "missing": {name: name for name in own if name not in state},
        "unexpected": {name: name for name in state if name not in own},
        "of another shape": {
            name: f"{name} ({_shape(state[name])}, the backbone's is {_shape(own[name])})"
            for name in own
            if name in state and own[name].shape != state[name].shape
        },
    }
    told = [f"{kind}: {_listed(names)}" for kind, names in problems.items() if names]
    if told:
        raise UserError(f"the weights in {source} do not fit the backbone ({'; '.join(told)})")
    net.load_state_dict(state)


def load_plain(net: nn.Module, state: dict[str, Tensor], source: str) -> str:
    """Load a state dict as torchvision, timm or a training script of one's own writes it.

    A prefix that all names have ("module.", "backbone.", "net.", "encoder.") is taken off where the
    network has none. The classifier that a backbone built by name lacks is left out. Everything
    else must match, or nothing is loaded.

    Returns:
        A line that says what was left out; empty where nothing was.

    Raises:
        UserError: listing what is missing, unexpected or of another shape.
    """
    own = net.state_dict()
    if not own.keys() & state.keys():
        state = _without_prefixes(state)
    classifier = tuple(f"{layer}." for layer in classifier_layers(net))
    left_out = {name: name for name in state if name not in own and name.startswith(classifier)}
    try:
        load_exactly(net, {name: state[name] for name in state if name not in left_out}, source)
    except UserError as error:
        raise UserError(f"{error}: is it another --backbone, --stem, --channels or --image-size?") from error
    return f"left out the classifier in {source}: {_listed(left_out)}" if left_out else ""


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _unreadable(file: Path, error: Exception) -> str:
    """Return what to tell of a file that torch or safetensors could not read."""
    if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
        return (
            f"{file} holds no state dict alone but Python objects, a whole network perhaps, and reading "
            "those could run any code: save it again with torch.save(net.state_dict(), ...)"
        )
    return (
        f"{file} holds no state dict that can be read: it is damaged, or no file that safetensors "
        "or torch.save(net.state_dict(), ...) wrote"
    )


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _listed(told: dict[str, str]) -> str:
    """Return what is told of each name; of more than a dozen, where they lie and how many: layer1.* (30).

    Modules are named as deep as a dozen entries allow, and every name is in one of them.
    """
    depth = max(name.count(".") for name in told) + 1
    while len(by_module := _by_module(told, depth)) > _LONGEST_LIST and depth > 1:
        depth -= 1
    return ", ".join(
        told[names[0]] if len(names) == 1 else f"{module}.* ({len(names)})"
        for module, names in by_module.items()
    )


def _by_module(names: Iterable[str], depth: int) -> dict[str, list[str]]:
    """Return dotted names under the first `depth` parts of each."""
    by_module: dict[str, list[str]] = {}
    for name in names:
        by_module.setdefault(".".join(name.split(".")[:depth]), []).append(name)
    return by_module
