"""attnbench/boards"""
