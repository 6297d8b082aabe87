"""attnbench/backends/translation"""
