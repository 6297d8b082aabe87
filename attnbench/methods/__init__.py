"""attnbench/methods"""
