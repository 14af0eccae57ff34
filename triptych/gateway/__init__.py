"""A web server in front of Triton: the APIs that people's tools speak, and a page to draw on.

Thin: it holds no model and no queue of its own, and asks Triton over gRPC. Python 3.11 and later.
"""
