"""attnbench/statistics"""
