"""Losses and metrics as pure functions of scores. torch only; no settings objects, no logging."""
