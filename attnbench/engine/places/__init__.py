"""attnbench/engine/places"""
