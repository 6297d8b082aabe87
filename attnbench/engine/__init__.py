"""attnbench/engine"""
