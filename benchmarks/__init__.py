"""Benchmarks, one file for each kernel. CI runs them at toy size; set CBDETACH_BENCH_SIZE=256 for figures."""
