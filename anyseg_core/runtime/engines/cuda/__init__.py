"""The part of CUDA that an engine needs, by pycuda or by cuda.bindings."""
