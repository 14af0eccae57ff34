# NVIDIA's Triton with ONNX Runtime behind the backend `fastdeploy`: TensorRT, else CUDA.
# The tag's CUDA must be the one that onnxruntime-gpu is built for (13 from 25.08 on).
ARG TRITON=25.08-py3
FROM nvcr.io/nvidia/tritonserver:${TRITON}

WORKDIR /opt/triptych
COPY requirements/tritonserver.txt requirements/
RUN pip install --no-cache-dir --break-system-packages -r requirements/tritonserver.txt
COPY pyproject.toml LICENSE ./
COPY triptych triptych
COPY triptych_export triptych_export
COPY backends backends
RUN pip install --no-cache-dir --break-system-packages --no-deps --no-build-isolation -e .

USER 1000
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=5s --start-period=900s \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://localhost:8000/v2/health/ready', timeout=4)"]
ENTRYPOINT ["fastdeployserver", "--model-repository=/models"]
