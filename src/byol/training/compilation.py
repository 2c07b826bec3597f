"""Whether a run is compiled, and what keeps it from that."""

import os
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import torch

from byol.config import PretrainConfig
from byol.errors import UserError


def use_compile(config: PretrainConfig) -> bool:
    """Say whether to compile the step: never on a CPU unless asked to, nor where something is missing.

    Raises:
        UserError: something is missing, and the user asked for it.
    """
    missing = missing_for_compiling()
    if config.compile == "on" and missing:
        raise UserError(f"--compile on needs {missing}; --compile auto does without")
    return config.compile == "on" or (config.compile == "auto" and not missing and torch.cuda.is_available())


def not_compiled_message(config: PretrainConfig) -> str | None:
    """Return what to tell where a run on a GPU is not compiled, and would be if it could."""
    missing = missing_for_compiling() if config.compile == "auto" and torch.cuda.is_available() else None
    return f"not compiled, which is slower: that needs {missing}" if missing else None


def missing_for_compiling() -> str | None:
    """Return what torch.compile needs and does not find; it would tell so in the middle of the first step."""
    on_gpu = torch.cuda.is_available()
    # Where Triton looks, and where torch does for a CPU.
    compilers = (os.environ.get("CC"), "gcc", "clang") if on_gpu else (os.environ.get("CXX"), "g++")
    if not any(shutil.which(name) for name in compilers if name):
        return "a C compiler (gcc or clang)" if on_gpu else "a C++ compiler (g++)"
    headers = (sysconfig.get_path("include"), sysconfig.get_config_var("INCLUDEPY"))  # on Debian they differ
    if not any(Path(folder, "Python.h").is_file() for folder in headers if folder):
        return "Python's header files (python3-dev)"
    if on_gpu and find_spec("triton") is None:
        return "Triton (pip install triton)"
    if on_gpu and torch.cuda.get_device_capability() < (7, 0):
        return "a GPU of compute capability 7.0 or more"
    return None
