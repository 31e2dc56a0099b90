"""The rule without a switch: no row may join sexual content with a word for a minor."""

import re
import unicodedata
from collections.abc import Iterable

# Whole words, so that Middlesex, sextant, kidney, minority and infantry do not match.
_SEXUAL = (
    r"sex|sexy|sexual(?:ly|ity|i[sz]ed)?|sexuali[sz]e|nud(?:e|es|ity|ist|ists)|naked|nsfw|topless|bottomless|"
    r"undress(?:ed|ing)?|unclothed|strip(?:ped|ping|tease|per|pers)|lingerie|underwear|panties|erotic(?:a|ism)?|"
    r"porn(?:o|ographic|ography)?|hentai|lewd|obscene|explicit|seducti(?:ve|on)|seduc(?:e|ed|ing)|sensual|"
    r"fetish|bdsm|bondage|orgasm|orgy|masturbat\w*|fellatio|intercourse|genitals?|genitalia|penis|vagina|"
    r"breasts?|nipples?|buttocks|rap(?:e|ed|ing|ist)|molest\w*|incest|prostitut\w*|brothel|aroused|horny|"
    r"p(?:a)?edophil\w*|grooming|xxx"
)
_MINOR = (
    r"child(?:ren|hood|like|ish|s)?|kid(?:s|dies|die|do)?|minors?|under[\s-]?aged?|pre[\s-]?teens?|teen(?:s|y|ie|aged?)?|"
    r"teenagers?|tweens?|toddlers?|infants?|newborns?|bab(?:y|ies)|boys?|girls?|school[\s-]?(?:boy|girl|child|kid)s?|"
    r"schoolchildren|adolescen(?:t|ts|ce)|juveniles?|youngsters?|youths?|kindergart\w*|pre[\s-]?school\w*|"
    r"(?:primary|elementary|middle|junior|high)[\s-]school\w*|(?:first|second|third|fourth|fifth|sixth)[\s-]graders?|"
    r"lol(?:i|is|ita|itas|icon)|shota(?:s|con)?|jail[\s-]?bait|p(?:a)?edophil\w*|prepubescent|pubescent|"
    r"nin[oa]s?|enfants?|kinder|bambin[oaie]"
)
_NUMBER_WORDS = (
    r"one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|"
    r"thirteen|fourteen|fifteen|sixteen|seventeen"
)
_UNDER_18 = rf"(?:[0-9]|1[0-7]|{_NUMBER_WORDS})"
_AGE = (
    rf"{_UNDER_18}[\s-]*(?:years?|yrs?|months?|mos?)[\s-]*olds?|{_UNDER_18}[\s-]*(?:yo|y/o)|"
    rf"(?:aged?|age of)[\s:]+{_UNDER_18}|under (?:18|eighteen)"
)
_SEXUAL_PATTERN = re.compile(rf"\b(?:{_SEXUAL})\b")
_MINOR_PATTERN = re.compile(rf"\b(?:{_MINOR}|{_AGE})\b")


def joins_minor_and_sexual(categories: Iterable[str], *texts: str) -> bool:
    """Say whether a row must be dropped: a sexual category or word together with a word for a minor.

    Every loader of prompts and every maker of pairs asks this and counts what it drops. It errs on
    the side of dropping, and has no switch. The word lists are our choice.

    Args:
        categories: the row's categories in any spelling; `nudity` counts as sexual.
        texts: everything else the row says: prompts, captions, file names.

    Returns:
        True if both sides are found, in the same text or in different ones.
    """
    text = _fold(" | ".join((*categories, *texts)))
    return bool(_SEXUAL_PATTERN.search(text) and _MINOR_PATTERN.search(text))


def _fold(text: str) -> str:
    """Undo disguises: case, full-width letters, accents, zero-width characters, underscores."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    kept = (c for c in decomposed if not unicodedata.combining(c) and unicodedata.category(c) != "Cf")
    return "".join(kept).replace("_", " ")
