"""attnbench/engine/realised"""
