"""Stable Diffusion weights to a served model repository. Needs torch or Paddle; never served."""
