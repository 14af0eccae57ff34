# The embedded Triton (24.10, of the package nvidia-pytriton) and ONNX Runtime on the CPU.
FROM python:3.12-slim-bookworm

WORKDIR /opt/triptych
COPY requirements/lock.txt requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/lock.txt
COPY pyproject.toml LICENSE ./
COPY triptych triptych
COPY triptych_export triptych_export
COPY backends backends
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e . \
    && useradd --uid 1000 --create-home triptych

USER 1000
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://localhost:8000/v2/health/ready', timeout=4)"]
ENTRYPOINT ["fastdeployserver", "--model-repository=/models", "--host=0.0.0.0"]
