"""A server of a few lines that speaks Triton's protocol."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from tritonclient.grpc import service_pb2_grpc


@contextmanager
def serving(fake, threads):
    """`fake`, a servicer, answers at `fake.url`."""
    server = grpc.server(ThreadPoolExecutor(threads))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
    fake.url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield fake
    server.stop(None).wait()
