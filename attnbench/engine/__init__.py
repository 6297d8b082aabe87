"""Attention itself: where a model attends, how methods change it there, how they learn, what they remove.

May import `methods`, `inputs` and `records`, and knows no method by its name. Begin with
`serving/attention.py`, where `apply` and `watch` are. The rooms are `places/` (where a model attends),
`serving/` (what happens there), `learning/` (gates, training and fitting), `relevance/` (what an answer
rests on) and `realised/` (less work for the same answers). The files beside them say which methods make
sense where, and what a method leaves behind.
"""
