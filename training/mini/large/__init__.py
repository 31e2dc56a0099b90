"""The large world: 210 concepts with words that carry meaning, for every claim about efficacy.

`concepts` fixes what training may see and what it may not; `scenes` and `pairs` are the pictures and pairs;
`shipped` reads the weights, and `recipe` is the training that made them.
"""
