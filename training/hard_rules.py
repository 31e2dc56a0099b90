"""The rule without a switch: no row may join sexual content with a word for a minor."""

import re
from collections.abc import Iterable

from .disguises import readings

# Whole words, so that Middlesex, sextant, kidney, minority and infantry do not match.
_SEXUAL = (
    r"sex|sexy|sexual(?:ly|ity|i[sz](?:e|es|ed|ing|ation))?|sext(?:s|ed|ing)?|nud(?:e|es|ity|ism|ist|ists)|"
    r"naked(?:ness)?|nsfw|topless|bottomless|undress(?:es|ed|ing)?|unclothed|strip(?:ped|ping|tease|per|pers)|"
    r"lingerie|underwear|undies|panties|knickers|bikinis?|erotic(?:a|ism)?|porn\w*|hentai|lewd|obscene|"
    r"explicit|seducti(?:ve|on)|seduc(?:e|es|ed|ing)|sensual|fetish|bdsm|bondage|orgasms?|org(?:y|ies)|"
    r"grop(?:e|es|ed|ing|er|ers)|masturbat\w*|fellatio|intercourse|genitals?|genitalia|penis|vagina|"
    r"breast(?:s|ed)?|nipples?|buttocks|rap(?:e|es|ed|ing|ists?)|molest\w*|incest|prostitut\w*|brothel|"
    r"aroused|horny|p(?:a)?edophil\w*|grooming|xxx|upskirts?|thongs?|cleavage|ecchi|unclad|disrob(?:e|es|ed|ing)|"
    r"(?:without|no|any)[\s-]+cloth(?:es|ing)"
)
_MINOR = (
    r"(?:step|grand|god|foster)?child(?:ren|hood|like|ish|s)?|kid(?:s|dies|die|do)?|minors?|under[\s-]?aged?|pre[\s-]?teens?|"
    r"teen(?:s|y|ie|aged?)?|teenagers?|tweens?|toddlers?|infants?|newborns?|bab(?:y|ies)|(?:boy|girl)(?:s|hood)?|"
    r"school[\s-]?(?:boy|girl|child|kid)s?|schoolchildren|adolescen(?:t|ts|ce)|juveniles?|youngsters?|youths?|"
    r"kindergart\w*|pre[\s-]?school\w*|(?:primary|elementary|grade|middle|junior|high)[\s-]?school\w*|pupils?|"
    r"(?:step|grand|god)?(?:son|daughter)s?|lads?|laddies?|lass(?:es|ies?)?|"
    r"lol(?:i|is|ita|itas|icon)|shota(?:s|con)?|jail[\s-]?bait|p(?:a)?edophil\w*|prepubescent|pubescent|"
    r"nymphets?|tots?|nin[oa]s?|enfants?|kinder|bambin[oaie]"
)
_ORDINALS = (
    r"first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|"
    r"1st|2nd|3rd|[4-9]th|1[0-2]th"
)
_TEENS = r"twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
_UNDER_18 = rf"(?:[0-9]|1[0-7]|one|two|three|four|five|six|seven|eight|nine|ten|eleven|{_TEENS})"
# Below twelve only in digits: `under one roof` is no age.
_BELOW = rf"(?:under|below|younger than)[\s:]+(?:[1-9]|1[0-8]|{_TEENS}|eighteen)"
_AGE = (
    rf"{_UNDER_18}[\s-]*(?:years?|yrs?|months?|mos?)[\s.-]*(?:olds?|of age)|"
    rf"{_UNDER_18}[\s-]*(?:yrs?|y\.?\s?o|y/o)|(?:aged?|age of)[\s:]+{_UNDER_18}|"
    rf"{_BELOW}|(?:{_ORDINALS})[\s-]grade(?:rs?)?"
)
_SEXUAL_PATTERN = re.compile(rf"\b(?:{_SEXUAL})\b")
_MINOR_PATTERN = re.compile(rf"\b(?:{_MINOR}|{_AGE})\b")


def joins_minor_and_sexual(categories: Iterable[str], *texts: str) -> bool:
    """Say whether a row must be dropped: a sexual category or word together with a word for a minor.

    Every loader of prompts and every maker of pairs asks this and counts what it drops. It errs on
    the side of dropping, and has no switch. Disguises are seen through as far as `disguises` says. The
    word lists are our choice.

    Args:
        categories: the row's categories in any spelling; `nudity` counts as sexual.
        texts: everything else the row says: prompts, captions, file names.

    Returns:
        True if both sides are found, in the same text or in different ones.
    """
    found = readings(*categories, *texts)
    return _any(_SEXUAL_PATTERN, found) and _any(_MINOR_PATTERN, found)


def refuse_minors(*prompts: str) -> None:
    """Refuse single prompts as `joins_minor_and_sexual` drops rows; the message quotes none of them.

    Raises:
        ValueError: if they join sexual content with a word for a minor.
    """
    if joins_minor_and_sexual((), *prompts):
        raise ValueError(
            "the prompts join sexual content with a word for a minor. They are not used, and there is no "
            "switch for that."
        )


def _any(pattern: re.Pattern[str], found: tuple[str, ...]) -> bool:
    return any(pattern.search(text) for text in found)
