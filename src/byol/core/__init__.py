"""Pure PyTorch: the learner, its parts, and the backbones it wraps. Start with `learner.py`."""
