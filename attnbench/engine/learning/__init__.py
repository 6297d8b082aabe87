"""attnbench/engine/learning"""
