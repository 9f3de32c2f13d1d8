"""Benchmarks that need torch: training speed, the GPU, and the tables that compare methods."""
