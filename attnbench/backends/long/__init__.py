"""Long texts to ask about, generated for a tokenizer and a length, as lm-eval's `custom_dataset`.

May import what `backends` may import. Begin with `dataset.py`, which task YAMLs name; `filler.py` writes the
sentences around what is asked for, `writers.py` what is asked for, `contexts.py` fits both to a length.
"""
