"""How good the large world's model is: the share of prompts that it draws as asked, by its own judge."""

from collections.abc import Sequence

from ...pairs import make_draw
from ...shipped import Shipped
from ...text_encoder import embed, load_text_encoder
from ..concepts import ALL_CONCEPTS
from ..scenes import GROUNDS, TEMPLATES, Scene

Asked = tuple[Scene, str]  # what a prompt asks for, and the prompt


def all_asked() -> list[Asked]:
    """Return a prompt for every word of every concept; grounds and templates take turns."""
    asked = []
    for number, concept in enumerate(ALL_CONCEPTS):
        for word in range(len(concept.words)):
            scene = Scene(concept, tuple(GROUNDS)[(number + word) % len(GROUNDS)])
            asked.append((scene, scene.prompt(word=word, template=len(asked) % len(TEMPLATES))))
    return asked


def drawn_right(weights: Shipped, asked: Sequence[Asked]) -> list[bool]:
    """Draw every prompt once and return whether the judge sees its concept on its ground."""
    prompts = [prompt for _, prompt in asked]
    texts = embed(["", *prompts], load_text_encoder(weights.token_rows()))
    embeds = dict(zip(["", *prompts], texts, strict=True))
    draw = make_draw(weights.load_unet(), weights.load_autoencoder(), embeds)
    answers = weights.load_judge().answers(draw(prompts, range(len(prompts))))
    return [answer == scene.answers for answer, (scene, _) in zip(answers, asked, strict=True)]
