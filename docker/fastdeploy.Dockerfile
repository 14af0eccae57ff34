# FastDeploy's own Triton (21.10, Python 3.8) and its own backend: Paddle or ONNX with TensorRT 8.5.
FROM registry.baidubce.com/paddlepaddle/fastdeploy:1.0.4-gpu-cuda11.4-trt8.5-21.10

WORKDIR /opt/triptych
COPY requirements/fastdeploy.txt requirements/
RUN python3 -m pip install --no-cache-dir -r requirements/fastdeploy.txt \
    && useradd --uid 1000 --create-home triptych
COPY triptych triptych
# Not installed: its fastdeployserver would stand before the image's own.
ENV PYTHONPATH=/opt/triptych

USER 1000
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=5s --start-period=900s \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://localhost:8000/v2/health/ready', timeout=4)"]
ENTRYPOINT ["fastdeployserver", "--model-repository=/models"]
