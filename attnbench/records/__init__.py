"""attnbench/records"""
