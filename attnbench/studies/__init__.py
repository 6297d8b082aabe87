"""attnbench/studies"""
