"""attnbench/cli"""
