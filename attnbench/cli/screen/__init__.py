"""What commands write to: the columns that there are, and what a stream cannot take.

May import `errors` and `records`. Begin with `laid_out.py`.
"""
