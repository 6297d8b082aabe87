"""attnbench/measures"""
