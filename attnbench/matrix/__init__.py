"""attnbench/matrix"""
