"""The `fastdeploy` backend for servers without FastDeploy: its config, run by ONNX Runtime."""
