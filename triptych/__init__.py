"""Stable Diffusion served by Triton, one model a stage."""

__version__ = "0.1.0"
