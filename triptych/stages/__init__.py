"""What each served model does between Triton and the rest of the package."""
