"""Statistics: data frames in, statements out."""
