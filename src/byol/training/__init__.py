"""Pretraining: Lightning drives it, and lives nowhere else.

Start with `run.py`: `byol.pretrain` checks what was asked for, `preparation.py` opens the data,
`resolution.py` fills in the settings left open, `session.py` builds everything and trains. What a step is
stands in `module.py`, what happens after one in `callbacks.py`; `processes.py` tells who the processes of
a run are, `peer_processes.py` lets them end together.

`byol_trainer.py` and `epochs.py` hold `BYOLTrainer` and `train_byol`: without Lightning, over `loop.py`.
"""
