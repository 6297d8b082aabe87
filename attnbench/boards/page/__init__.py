"""attnbench/boards/page"""
