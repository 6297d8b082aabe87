"""attnbench/backends/causal"""
