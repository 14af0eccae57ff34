"""One module for each served model: from Triton's requests to the rest of the package, and back."""
