"""What commands write to: the columns that there are, and what a stream cannot take."""
