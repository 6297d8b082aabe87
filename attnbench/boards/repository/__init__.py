"""A repository of results that others add to: suites, records, boards, card and its pull requests' checks.

May import the boards' other rooms and what those may import. Begin with `layout.py`.
"""
