"""attnbench/boards/formats"""
