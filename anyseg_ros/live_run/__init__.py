"""What the demo, the live replay and the benchmarks share: processes, recorded masks and statuses."""
