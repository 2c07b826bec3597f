"""Pretraining: Lightning drives it, and lives nowhere else. Start with `run.py`."""
