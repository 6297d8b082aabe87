"""The conformance kit: what `attnbench.testing.check_method` runs on five tiny architectures.

`tiny` builds models, `subject` runs a spec on one; `source`, `promises`, `learned`, `integrity` and
`strength` check.
"""
