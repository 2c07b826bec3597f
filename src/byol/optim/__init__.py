"""Optimizers, parameter groups and schedules: plain functions of steps."""
