"""attnbench/engine/serving"""
