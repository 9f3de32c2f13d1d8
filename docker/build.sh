#!/bin/bash
# Build the image for a generation of JetPack, on the Jetson or with `docker buildx` on another machine:
#   docker/build.sh jetpack6|jetpack7 [further arguments of docker build]
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
  jetpack6) # Orin: Ubuntu 22.04, Python 3.10, CUDA 12.6, TensorRT 10.3
    arguments=(BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0 ROS_DISTRO=humble "CUDA_BINDINGS=cuda-bindings>=12.8,<13") ;;
  jetpack7) # Thor: Ubuntu 24.04, Python 3.12, CUDA 13.0, TensorRT 10.13
    arguments=(BASE=nvcr.io/nvidia/tensorrt:25.09-py3 ROS_DISTRO=jazzy "CUDA_BINDINGS=cuda-bindings>=13,<14") ;;
  *)
    echo "usage: docker/build.sh jetpack6|jetpack7 [arguments of docker build]" >&2
    exit 2 ;;
esac
name=$1
shift
# The host's network: Docker 28 cannot set up its own on JetPack 6.
exec docker build --network host --platform linux/arm64 -f docker/Dockerfile -t "anyseg:${name}" \
  "${arguments[@]/#/--build-arg=}" "$@" .
