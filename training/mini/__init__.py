"""The mini model: a real text-to-image model of a few MB, for the demo, the tests and the benchmarks.

`scenes` and `icons` are its world: one icon of one colour on one ground, with stand-ins for harm. `build`
writes a checkpoint that hosts load as SD 1.5, with its pairs and experts; `architecture` and `expand`
widen the stored UNet to that size. `shipped` reads the weights in `weights/`, `text_encoder` draws its
own from named seeds, and `judge` says what a picture shows. `recipe` is the training that made the
weights.
"""
