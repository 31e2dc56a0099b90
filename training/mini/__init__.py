"""The mini models: real text-to-image models of a few MB, for the demo, the tests and the benchmarks.

There are two worlds. In the small one, `scenes` and `icons`, a picture shows one icon of one colour on one
ground, and each category of harm has one stand-in. In `large`, each category has ten stand-ins, and words
carry meaning. `build` writes a checkpoint that hosts load as SD 1.5, with its pairs; `architecture` and
`expand` widen the stored UNet to that size. `flow` draws the small world by a transformer that hosts load as
SD 3. `shipped` reads the weights in `weights/`, `text_encoder` draws its own from named seeds, and `judge`
says what a picture shows. `recipe` is the training that made the weights.
"""

WORLDS = {  # name -> summary
    "small": "drawn icons, one stand-in for each category, with a trained expert each",
    "large": "emoji of 210 concepts with three words each, ten stand-ins for each category",
    "flow": "the small world, drawn by a flow-matching transformer that hosts load as SD 3",
}
