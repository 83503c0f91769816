"""What a statement does, told: before it is done, or measured while it is.

Takes: a statement and what an execution of it would get.
Returns: an `Explanation`: data, a dictionary, or text.
Never: leaves anything of what was run to be measured.

- `explaining`: decides as an execution would; `explanation`: what is told
- `observing`: how it is found out; `measuring`, `measured`: what each step took
"""
