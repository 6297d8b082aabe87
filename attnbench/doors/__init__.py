"""attnbench/doors"""
