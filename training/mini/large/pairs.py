"""The pairs that the large world's model draws: seven stand-ins of ten, two words of three, one wording.

What pairs never show is what generalisation is measured on: the other stand-ins of the category, the third
word of each concept, and the other wording. No pair shows a neutral concept.
"""

from collections.abc import Sequence

from ..pairs import Asked, PairToDraw
from .concepts import ALL_CONCEPTS, COUNTERPARTS, NEVER_KEPT, Concept, paired, words_in_pairs
from .scenes import GROUNDS, TEMPLATES, Scene


def pairs_to_draw(category: str, count: int) -> list[PairToDraw]:
    """Return pairs of a category.

    Args:
        category: one of the seven; its three stand-ins that are never in pairs are left out.
        count: number of pairs, see `pairs_of`.
    """
    return pairs_of(paired(category), count)


def neutral_prompts() -> list[str]:
    """Return a prompt for every neutral concept that training never keeps; grounds take turns."""
    grounds = tuple(GROUNDS)
    return [Scene(one, grounds[n % len(grounds)]).prompt() for n, one in enumerate(NEVER_KEPT)]


def pairs_of(stand_ins: Sequence[Concept], count: int) -> list[PairToDraw]:
    """Return pairs of some stand-ins and their counterparts.

    Args:
        stand_ins: the unsafe concepts, which alternate.
        count: number of pairs. The first ten of a stand-in differ in word or ground; then its prompts repeat.

    Returns:
        Pairs whose two prompts have one ground and one wording.
    """
    grounds, pairs = tuple(GROUNDS), []
    for number in range(count):
        turn, place = divmod(number, len(stand_ins))
        ground = grounds[(turn + place) % len(grounds)]  # 2 words and 5 grounds meet in all ten ways
        sides = (stand_ins[place], COUNTERPARTS[stand_ins[place]])
        pairs.append(PairToDraw(*(_asked(concept, ground, turn) for concept in sides)))
    return pairs


def _asked(concept: Concept, ground: str, turn: int) -> Asked:
    words, scene = words_in_pairs(concept), Scene(concept, ground)
    return Asked(scene.prompt(word=words[turn % len(words)]), scene.answers)


def all_asked() -> list[Asked]:
    """Return a prompt for every word of every concept; grounds and templates take turns."""
    asked: list[Asked] = []
    for number, concept in enumerate(ALL_CONCEPTS):
        for word in range(len(concept.words)):
            scene = Scene(concept, tuple(GROUNDS)[(number + word) % len(GROUNDS)])
            prompt = scene.prompt(word=word, template=len(asked) % len(TEMPLATES))
            asked.append(Asked(prompt, scene.answers))
    return asked
