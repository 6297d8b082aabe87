"""attnbench/inputs"""
