"""Skips, with the reason, what this machine cannot run; keeps transformers quiet and on one thread."""
import os
import sys
import pathlib

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "tools/goldens")]

import sluice  # noqa: E402

sys.path.append(str(sluice.PROGRAM.parent / "python"))  # the module sluice_ops


@pytest.fixture(scope="session")
def program():
    if not sluice.PROGRAM.exists():
        pytest.skip(f"{sluice.PROGRAM} is not built")
    return sluice.PROGRAM


@pytest.fixture(scope="session")
def bundled(program):
    if not (sluice.MODEL / "model.safetensors").exists():
        pytest.skip(f"{sluice.MODEL} holds no model")
    return sluice.MODEL


@pytest.fixture(scope="session")
def transformers():
    library = pytest.importorskip("transformers")
    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    import torch
    torch.set_num_threads(1)
    return library
