"""attnbench/boards/pictures"""
