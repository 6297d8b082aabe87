"""attnbench/boards/tables"""
