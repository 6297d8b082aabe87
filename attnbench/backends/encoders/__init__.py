"""attnbench/backends/encoders"""
